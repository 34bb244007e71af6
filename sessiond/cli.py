"""`sessiond`: the server's command line.

It imports the server only to serve, so that help, errors in the command line and completion take no second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
from click.shell_completion import CompletionItem

from sessiond import __version__
from sessiond.domain.text import looks_like_token, printable, without_tokens

__all__ = ["MISCONFIGURED", "main"]

MISCONFIGURED = 78
"""The exit code if the server did not start and cannot until somebody changes something: EX_CONFIG of sysexits.h."""
_WRONG_USAGE = 2
_DEFAULT_FILE = Path("sessiond.toml")


class _Failure(click.ClickException):
    """The server did not start: another process has what it needs, and a supervisor may try again."""

    def __init__(self, error: Exception | str) -> None:
        # A key or a path may hold any character, and the text goes to a terminal or a log.
        super().__init__("\n".join(printable(line) for line in without_tokens(str(error)).split("\n")))

    def show(self, file: IO[Any] | None = None) -> None:
        """Write the message to `file`; None: standard error. Each line is an error of its own."""
        for line in self.message.split("\n"):
            click.echo(f"Error: {line}", file=file, err=file is None)


class _Misconfigured(_Failure):
    """The server did not start, and cannot until somebody changes something."""

    exit_code = MISCONFIGURED


class _WrongUsage(_Failure):
    """The command line is wrong. One line, unlike click's own three."""

    exit_code = _WRONG_USAGE


@contextmanager
def _one_line_for_wrong_usage(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise  # this prints the help
    except click.UsageError as error:
        from sessionctl.failures import usage_text  # imported here: the server does not need the operator's tools

        raise _WrongUsage(usage_text(error, ctx)) from None


class _Commands(click.Group):
    """The commands of `sessiond`. Wrong usage of any of them is reported in one line, as `sessionctl` does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if any(map(looks_like_token, args)) and not ctx.resilient_parsing:  # a shell that completes shows no errors
            raise _WrongUsage("an argument looks like a token; sessiond takes no tokens, and others can read arguments")
        with _one_line_for_wrong_usage(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line_for_wrong_usage(ctx):
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-") and not ctx.resilient_parsing:
            from sessionctl.failures import unknown_command  # imported here, as above

            raise unknown_command(self, ctx, args[0])
        return super().resolve_command(ctx, args)


def _folder(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("must be the path of a folder")
    return value


def _folders(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem[str]]:
    """Complete the path of a folder, which the shell does itself."""
    return [CompletionItem(typed, type="dir")]


def _listen(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        if value is None:
            return None
        from sessiond.config import parse_listen  # imported here, because it takes long

        return parse_listen(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _upstream(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        if value is None:
            return None
        from sessiond.config import parse_upstream  # imported here, as above

        return parse_upstream(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _help(parameter: str, text: str) -> str:
    """Return the help text of an option, with its environment variable."""
    return f"{text} [env: SESSIOND_{parameter.upper()}]"


@contextmanager
def _failed_starts() -> Iterator[None]:
    """Report a start that failed in one line, with the exit code for its cause."""
    from sessiond.serving import IN_USE, REFUSED  # imported here, because it takes a second

    try:
        yield
    except IN_USE as error:
        raise _Failure(error) from error
    except REFUSED as error:
        raise _Misconfigured(error) from error


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that the command line has."""
    return {name: value for name, value in options.items() if value is not None}


@click.group("sessiond", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sessiond")
def main() -> None:
    """A session authority: opens, validates, renews, rolls, expires and revokes web sessions over gRPC."""


@main.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    envvar="SESSIOND_CONFIG",
    help="The configuration file. Default: ./sessiond.toml, if it exists. [env: SESSIOND_CONFIG]",
)
@click.option(
    "--data",
    callback=_folder,
    metavar="PATH",
    shell_complete=_folders,
    help=_help("data", "The folder with the key file and the SQLite database. Default: ./data."),
)
@click.option(
    "--listen",
    callback=_listen,
    metavar="ADDRESS",
    help=_help("listen", "HOST:PORT (port 0: any free port) or unix:PATH. Default: 127.0.0.1:7443."),
)
@click.option(
    "--transport",
    type=click.Choice(["grpcio", "native"]),
    help=_help("transport", "What carries the calls. native: faster; needs the extra `native`."),
)
@click.option(
    "--tls-certificate",
    metavar="FILE",
    type=click.Path(),
    help=_help("tls_certificate", "Serve TLS with the certificate in this PEM file. Read again when it changes."),
)
@click.option(
    "--tls-key",
    metavar="FILE",
    type=click.Path(),
    help=_help("tls_key", "The private key of the certificate, in PEM form."),
)
@click.option(
    "--tls-client-ca",
    metavar="FILE",
    type=click.Path(),
    help=_help("tls_client_ca", "Require certificates of clients, signed by one in this PEM file."),
)
@click.option(
    "--allow-remote-plaintext",
    is_flag=True,
    default=None,
    help=_help("allow_remote_plaintext", "Listen on an address that other machines can reach, without encryption."),
)
@click.option(
    "--allow-without-callers",
    is_flag=True,
    default=None,
    help=_help("allow_without_callers", "Give full access to everyone who can connect from other machines."),
)
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    help=_help("workers", "How many processes answer on the port, besides the one that owns the store."),
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    help=_help("log_format", "The format of the log. auto: console on a terminal, else json."),
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help=_help("log_level", "The least severe level that is logged."),
)
def serve(file: Path | None, **options: Any) -> None:
    """Start the server.

    Options override environment variables, which override the configuration file. Every key of [server],
    [server.tls], [log], [networks] and [limits] has a variable: SESSIOND_MAX_CALLS for server.max_calls,
    SESSIOND_TLS_KEY for server.tls.key, SESSIOND_LOG_LEVEL for log.level, SESSIOND_NETWORKS_OPERATORS for
    networks.operators, SESSIOND_LIMITS_BURST for limits.burst. Without a file there is one application, `default`.

    Exit codes: 0 stopped by SIGTERM or SIGINT; 1 the store failed, the server cannot listen on the address, another
    process uses the data folder, or a worker does not start; 2 wrong usage; 78 the configuration, a file that it names,
    the data folder or the database cannot be used.
    """
    from sessiond import serving

    with _failed_starts():
        sys.exit(serving.serve(file, _given(options)))


@main.command()
@click.option(
    "--upstream",
    callback=_upstream,
    metavar="ADDRESS",
    help="The authority: HOST:PORT or unix:PATH. Default: 127.0.0.1:7443. [env: SESSIOND_UPSTREAM]",
)
@click.option(
    "--upstream-ca",
    metavar="FILE",
    type=click.Path(),
    help="Use TLS, and accept certificates signed by one in this PEM file. [env: SESSIOND_UPSTREAM_CA]",
)
@click.option(
    "--upstream-certificate",
    metavar="FILE",
    type=click.Path(),
    help="Present the client certificate in this PEM file. Read again when it changes. "
    "[env: SESSIOND_UPSTREAM_CERTIFICATE]",
)
@click.option(
    "--upstream-key",
    metavar="FILE",
    type=click.Path(),
    help="The private key of that certificate, in PEM form. [env: SESSIOND_UPSTREAM_KEY]",
)
@click.option(
    "--key-file",
    metavar="FILE",
    type=click.Path(),
    help="The key of the sidecar itself, if the authority has callers. [env: SESSIOND_KEY_FILE]",
)
@click.option(
    "--listen",
    callback=_listen,
    metavar="ADDRESS",
    help="unix:PATH or HOST:PORT. Default: unix:sessiond-sidecar.sock. [env: SESSIOND_LISTEN]",
)
@click.option(
    "--http-listen",
    callback=_listen,
    metavar="ADDRESS",
    help="Where proxies ask over HTTP: unix:PATH or HOST:PORT. Default: nowhere. [env: SESSIOND_HTTP_LISTEN]",
)
@click.option(
    "--metrics-listen",
    callback=_listen,
    metavar="ADDRESS",
    help="Where Prometheus asks for metrics: unix:PATH or HOST:PORT. Default: nowhere. [env: SESSIOND_METRICS_LISTEN]",
)
@click.option(
    "--tracing",
    metavar="URL",
    help="The OpenTelemetry collector to which traces are sent: http://HOST:PORT, https://HOST:PORT, or env: the "
    "variables OTEL_*. Default: none. [env: SESSIOND_TRACING]",
)
@click.option(
    "--socket-mode",
    type=click.Choice(["0600", "0660"]),
    help="Who may connect to the Unix socket: its user, or its group too. [env: SESSIOND_SOCKET_MODE]",
)
@click.option(
    "--allow-remote-plaintext",
    is_flag=True,
    default=None,
    help="Send tokens over a network without encryption. [env: SESSIOND_ALLOW_REMOTE_PLAINTEXT]",
)
@click.option(
    "--cache-entries", type=int, help="How many answers are kept. Default: 100,000. [env: SESSIOND_CACHE_ENTRIES]"
)
@click.option(
    "--cache-bytes",
    type=int,
    help="About how many bytes they may take. Default: 256,000,000. [env: SESSIOND_CACHE_BYTES]",
)
@click.option(
    "--max-calls", type=int, help="How many calls are served at once. Default: 3,000. [env: SESSIOND_MAX_CALLS]"
)
@click.option(
    "--max-streams",
    type=int,
    help="How many streams are forwarded at once. Default: 1,000. [env: SESSIOND_MAX_STREAMS]",
)
@click.option(
    "--drain-delay",
    metavar="DURATION",
    help="How long to serve on after SIGTERM, for load balancers. Default: 0s. [env: SESSIOND_DRAIN_DELAY]",
)
@click.option(
    "--drain-timeout",
    metavar="DURATION",
    help="How long calls under way may then take. Default: 5s. [env: SESSIOND_DRAIN_TIMEOUT]",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "console"]),
    help=_help("log_format", "The format of the log. auto: console on a terminal, else json."),
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help=_help("log_level", "The least severe level that is logged."),
)
def sidecar(**options: Any) -> None:
    """Serve the authority's service on a local address.

    Repeated validations are answered from memory, which follows the authority's changes. Everything else is forwarded.
    While the authority cannot be reached, calls that cannot be answered from memory are refused. Options override
    environment variables.

    Exit codes: 0 stopped by SIGTERM or SIGINT; 1 cannot listen on the address; 2 wrong usage; 78 a setting cannot be
    used.
    """
    from sessiond import serving

    with _failed_starts():
        sys.exit(serving.serve_sidecar(_given(options)))


@main.command(hidden=True)
@click.option("--upstream", required=True)
@click.option("--listen", required=True)
@click.option("--cache-entries", type=int, required=True)
@click.option("--max-calls", type=int, required=True)
@click.option("--max-streams", type=int, required=True)
@click.option("--drain-delay", required=True)
@click.option("--drain-timeout", required=True)
@click.option("--log-format", required=True)
@click.option("--log-level", required=True)
@click.option("--tracing", required=True)
def worker(**options: Any) -> None:
    """Answer on a port for `sessiond serve --workers`, which starts this."""
    from sessiond import serving

    with _failed_starts():
        sys.exit(serving.serve_as_worker(options))


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path), default=_DEFAULT_FILE)
@click.option("--strict", is_flag=True, help="Exit with code 1 if a setting is weak or a file is missing.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, one finding per line.")
def check_config(file: Path, strict: bool, as_json: bool) -> None:
    """Check a configuration file, ./sessiond.toml by default.

    Reports errors, settings that are weaker than OWASP, ASVS 5.0 or NIST recommend, and files that FILE names and that
    are not on this machine. What those files, the environment and the data folder contain is not checked.

    Exit codes: 0 the file can be used; 1 a setting is weaker than the guidance or a file is missing (--strict); 2
    wrong usage; 78 the file cannot be used.
    """
    from sessionctl.checking import check  # imported here: the server does not need the operator's tools

    sys.exit(check(file, strict=strict, json=as_json))


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="SHELL")
def completion(shell: str) -> None:
    """Write the completion script for bash, zsh or fish.

    In bash, add this line to ~/.bashrc. In zsh, write zsh instead of bash, and add it to ~/.zshrc after `compinit`:

    \b
      eval "$(sessiond completion bash)"

    In fish, run once:

    \b
      sessiond completion fish > ~/.config/fish/completions/sessiond.fish
    """
    from sessionctl.completing import completion_script  # imported here, as above

    click.echo(completion_script(main, shell), nl=False)
