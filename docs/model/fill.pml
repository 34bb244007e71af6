/*
 * The race between a fill and a change.
 *
 * Property: once a near cache has applied the event of a change, it never answers with an earlier state, neither
 * from an entry nor from a read that began before.
 *
 * The near cache follows one replica. Behind a load balancer another replica may answer its misses, and that one
 * may lag behind. The rules, which sessiond/cache/sessions.py has for a replica's reads of its store too:
 *
 *   - A fill asks with `at_least`, the revision that the cache has applied. The replica that answers must have
 *     applied that revision as well, or read the store.
 *   - If an event of the session was applied since the question was asked, the answer does not count, neither for
 *     the cache nor for those who wait for it. The cache asks again.
 *   - An event removes the session's entry, unless the entry is as new.
 *   - After the loss of its stream, the cache resumes from its cursor.
 *
 *     spin -a fill.pml
 *
 * The log has CHANGES events, each of this session or of another one. A state of the session is the revision of
 * its last change, so an earlier state is a smaller number. Delays are arbitrary: each process may stop between
 * any two steps. Leases are left out (lease.pml): this cache is always open.
 *
 * Each #ifdef is a negative control: it removes a rule, and spin must then find an error.
 */

#define CHANGES 4

/* The log in the store. */
byte head;                /* the newest revision */
byte state[CHANGES + 1];  /* by revision: the session's state then */

/* The replicas. */
byte replica[2];          /* the revision that each has applied */
byte followed;            /* which one the near cache follows */

/* The near cache. */
byte cacheApplied;        /* the newest revision that it has applied; its cursor */
bool cached;              /* there is an entry for the session */
byte entry;               /* the state that the entry is about */

/* The fill. Misses of the session share it. */
mtype = { NONE, ASKED, ANSWERED };
mtype fill = NONE;
byte atLeast;             /* the revision that the question asks for */
byte answer;
bool overtaken;           /* an event of the session was applied since the question was asked */
byte wanted;              /* the newest state that one of those who wait for the fill must see */

/* Writers: each commit adds one event. */
active proctype log() {
end:
    do
    :: atomic {
            head < CHANGES ->
            if
            :: state[head + 1] = head + 1     /* a change of this session */
            :: state[head + 1] = state[head]  /* a change of another one */
            fi;
            head++;
            printf("log: revision %d; the session's state is %d\n", head, state[head])
        }
    od
}

/* Each replica applies the log at its own pace: eventlog/follower.py. */
active [2] proctype follower() {
end:
    do
    :: atomic { replica[_pid % 2] < head -> replica[_pid % 2]++; printf("replica %d: applies a revision\n", _pid % 2) }
    od
}

/* The stream of events from the followed replica to the near cache. */
active proctype stream() {
end:
    do
    :: atomic {
        cacheApplied < replica[followed] ->
        cacheApplied++;
        printf("cache: applies revision %d\n", cacheApplied);
        if
        :: state[cacheApplied] == cacheApplied ->
#ifndef NO_FENCE
            overtaken = (fill != NONE);
#endif
            /* An entry that is newer than the event stays. */
            cached = cached && entry >= cacheApplied;
            entry = (cached -> entry : 0)
        :: else
        fi
    }

    /* The stream breaks, and the next one goes to the other replica. It starts at the cursor. */
    :: atomic {
        followed = 1 - followed;
        printf("cache: follows replica %d from now on\n", followed);
#ifdef START_AT_NOW
        cacheApplied = replica[followed]
#endif
    }
    od
}

/* Any replica answers the question, once it has applied `atLeast`. */
active proctype upstream() {
end:
    do
    :: atomic {
        fill == ASKED ->
        if
        :: replica[0] >= atLeast -> answer = state[replica[0]]; printf("replica 0: answers state %d\n", answer)
        :: replica[1] >= atLeast -> answer = state[replica[1]]; printf("replica 1: answers state %d\n", answer)
        /* The replica has not cached the session, or it lags: it reads the store. */
        :: answer = state[head]; printf("a replica: answers state %d, from the store\n", answer)
        fi;
        fill = ANSWERED
    }
    od
}

inline ask() {
    overtaken = false;
#ifndef NO_AT_LEAST
    atLeast = cacheApplied;
#endif
    answer = 0;
    fill = ASKED;
    printf("cache: asks for a state at %d at least\n", atLeast)
}

/* Validations, and the answers that they wait for. */
active proctype validations() {
end:
    do
    /* A hit. */
    :: atomic { cached -> printf("validation: a hit\n"); assert(entry >= state[cacheApplied]) }

    /* A miss starts a fill, or joins the one that is under way. */
    :: atomic { !cached && fill == NONE -> printf("validation: a miss\n"); wanted = state[cacheApplied]; ask() }
    :: atomic { !cached && fill != NONE -> printf("validation: joins the fill\n"); wanted = state[cacheApplied] }

    /* The answer arrives. */
    :: atomic {
        fill == ANSWERED ->
        printf("cache: the answer arrives, state %d\n", answer);
        if
#ifndef SHARE_OVERTAKEN
        :: overtaken -> ask()  /* it does not count: neither for the cache nor for those who wait */
#endif
        :: else ->
            assert(answer >= wanted);
            if
            :: !overtaken -> entry = answer; cached = true
            :: else
            fi;
            fill = NONE; atLeast = 0; answer = 0; overtaken = false; wanted = 0
        fi
    }

    /* The entry makes room for others. */
    :: atomic { cached -> cached = false; entry = 0; printf("cache: drops the entry\n") }
    od
}
