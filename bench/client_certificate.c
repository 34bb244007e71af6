/* Gives h2load a certificate of its own, for which it has no option. Loaded with LD_PRELOAD; see bench/tls.py. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

#define PEM 1 /* SSL_FILETYPE_PEM */

/* Declared here, so that no headers of OpenSSL need to be installed. */
int SSL_CTX_use_certificate_chain_file(void *context, const char *file);
int SSL_CTX_use_PrivateKey_file(void *context, const char *file, int type);

void *SSL_CTX_new(const void *method)
{
    void *(*original)(const void *) = (void *(*)(const void *))dlsym(RTLD_NEXT, "SSL_CTX_new");
    const char *certificate = getenv("BENCH_CERTIFICATE"), *key = getenv("BENCH_KEY");
    void *context = original ? original(method) : NULL;

    if (context && certificate && key
        && (SSL_CTX_use_certificate_chain_file(context, certificate) != 1
            || SSL_CTX_use_PrivateKey_file(context, key, PEM) != 1))
        abort();
    return context;
}
