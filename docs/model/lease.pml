/*
 * Leases and awaited revocation.
 *
 * Property: after a revocation that waits for caches has returned, no validation that begins later is answered
 * VALID from a cache, neither by a near cache nor by a replica.
 *
 * The rules: docs/decisions/0022-replicas.md, and the comments at Follow in
 * protos/sessiond/v1/session_authority.proto.
 *
 *     spin -a -DEMBEDDED lease.pml      one authority with its own file; it runs the revocation itself
 *     spin -a lease.pml                 replicas over a shared store; any of them runs the revocation
 *
 * One session, one revocation, one near cache. Several caches do not influence each other, and what is awaited is
 * the same for each, so one stands for all. Other events would only delay this one.
 *
 * Time. Only the order of steps and ends of leases matters. A tick (process `time`) makes all durations one
 * shorter, and any number of steps fits between two ticks. Clocks may drift: with its allowance, a cache closes at
 * most LEASE after the start of its lease, and a record of that lease lasts at least LEASE, by any of the clocks.
 * Here both are exactly LEASE, the worst case: a cache that closes earlier, or a record that lasts longer, only
 * removes answers.
 *
 * Each #ifdef but EMBEDDED is a negative control: it removes a rule, and spin must then find an error.
 */

#ifndef LEASE
#define LEASE 2
#endif
#ifdef NO_DRIFT_ALLOWANCE
#define AT_CACHE (LEASE + 1)  /* the cache's clock is slow, and the cache does not allow for that */
#else
#define AT_CACHE LEASE
#endif
#define max(a, b) ((a) > (b) -> (a) : (b))
#define min(a, b) ((a) < (b) -> (a) : (b))

mtype = { EVENT, GRANT, RENEWAL, ACKNOWLEDGEMENT };

/* The Follow stream: ordered, arbitrarily slow. It has room for all messages there can be, so nothing blocks. */
chan down = [3] of { mtype, byte, byte };  /* EVENT, 0, 0 | GRANT, nonce, duration */
chan up = [3] of { mtype, byte };          /* RENEWAL, nonce | ACKNOWLEDGEMENT, 0 */

/* The log, and the call. */
bool committed;         /* the revocation is in the log */
bool returned;          /* the awaited revocation has returned to its caller */

/* The near cache. It keeps the answer VALID for the session until it applies the revocation. */
bool cacheApplied;
byte cacheLease;        /* how long it may still answer; 0: it is closed */
bool asked[2];          /* by nonce: a renewal without a grant so far */
byte sinceAsked[2];     /* by nonce: the rest of a full lease that counts from before the renewal was sent */
byte lastAsked;         /* the newest nonce, for IGNORE_NONCE */

/* The authority or replica that the near cache follows. */
bool applied;           /* its own session cache includes the revocation */
bool sent;              /* the event is on the stream */
bool broken;            /* it has lost the stream; the near cache has not noticed yet */
bool acknowledged;      /* the near cache has acknowledged the revocation on this stream */
byte record;            /* the rest of the near cache's lease, as recorded here */
byte recordBefore;      /* the same for streams that are lost: nothing is acknowledged on these any more */

/* EMBEDDED: how long after a start there may be leases that were granted before, of which there is no record. */
byte afterStart;

/* Replicas: the followed replica's own lease. */
byte lease;             /* how long it may answer from its session cache: sessiond_client/following.py */
byte sinceRenewing;     /* the rest of a lease that counts from before the renewal that is under way */
byte storeRecord;       /* the rest of its lease as another replica sees it in the store: eventlog/neighbours.py */
byte storeRecordBefore; /* the same for the replica's earlier processes; each process has a row of its own */
bool storeAcknowledged; /* its row acknowledges the revocation */
byte longest;           /* the rest of the longest time for which another replica waits */

/* Each near cache has acknowledged the revocation, or its lease has run out. */
#define cachesDone (recordBefore == 0 && (acknowledged || record == 0))

#define shorten(left) left = (left > 0 -> left - 1 : 0)

active proctype time() {
    do
    :: d_step {
        printf("time: a tick\n");
        shorten(cacheLease); shorten(sinceAsked[0]); shorten(sinceAsked[1]);
        shorten(record); shorten(recordBefore); shorten(afterStart);
        shorten(lease); shorten(sinceRenewing); shorten(storeRecord); shorten(storeRecordBefore); shorten(longest)
    }
    od
}

/* The property. A cache answers in one step: nothing is awaited between its look at the lease and the answer. */
active proctype validations() {
end:
    do
    :: atomic { returned -> assert(!(cacheLease > 0 && !cacheApplied)) }
#ifdef EMBEDDED
    :: atomic { returned -> assert(applied) }
#else
    :: atomic { returned -> assert(!(lease > 0 && !applied)) }
#endif
    od
}

/* The near cache: one message after the other. */
active proctype cache() {
    byte nonce, duration;
end:
    do
    /* Renew. The clock is read before the message is sent; a delay between the two is a part of the stream's delay. */
    :: atomic {
        if
        :: !asked[0] -> nonce = 0
#ifdef EMBEDDED
        :: !asked[1] -> nonce = 1  /* two renewals under way: with one authority only, to keep the search small */
#endif
        fi;
        printf("cache: sends renewal %d\n", nonce);
        asked[nonce] = true; sinceAsked[nonce] = AT_CACHE; lastAsked = nonce;
        up!RENEWAL(nonce)
    }

#ifdef ACK_BEFORE_APPLY
    :: atomic { down?EVENT(_, _) -> printf("cache: acknowledges the revocation\n"); up!ACKNOWLEDGEMENT(0) }
        atomic { printf("cache: applies the revocation\n"); cacheApplied = true }
#else
    :: atomic { down?EVENT(_, _) -> printf("cache: applies the revocation\n"); cacheApplied = true }
        atomic { printf("cache: acknowledges the revocation\n"); up!ACKNOWLEDGEMENT(0) }
#endif

    :: atomic {
        down?GRANT(nonce, duration) ->
        asked[nonce] = false;
#ifdef COUNT_FROM_RECEIPT
        sinceAsked[nonce] = AT_CACHE;
#endif
#ifdef IGNORE_NONCE
        sinceAsked[nonce] = sinceAsked[lastAsked];
#endif
        /* The lease ends `duration` after the renewal was sent: a full lease after it, less what was not granted. */
        duration = LEASE - duration;
        cacheLease = max(cacheLease, (sinceAsked[nonce] > duration -> sinceAsked[nonce] - duration : 0));
        printf("cache: takes grant %d; its lease is now %d\n", nonce, cacheLease);
        sinceAsked[nonce] = 0; nonce = 0; duration = 0
    }

    /* It notices that the stream is lost, closes, and opens another stream, which starts at its cursor. */
    :: atomic {
        broken ->
        printf("cache: notices the loss and follows again\n");
        do :: down?_, _, _ :: empty(down) -> break od;
        do :: up?_, _ :: empty(up) -> break od;
        cacheLease = 0; asked[0] = false; asked[1] = false; sinceAsked[0] = 0; sinceAsked[1] = 0;
        broken = false; sent = cacheApplied; acknowledged = cacheApplied
    }
    od
}

inline loseStream() {
#ifndef FORGET_WITH_STREAM
    recordBefore = (acknowledged -> recordBefore : max(recordBefore, record));
#endif
    broken = true; acknowledged = false; record = 0
}

/* The authority's side of the stream. */
active proctype authority() {
    byte nonce, duration;
end:
    do
    :: atomic { !broken && applied && !sent -> printf("authority: sends the event\n"); sent = true; down!EVENT(0, 0) }

    :: atomic {
        !broken && up?[RENEWAL(_)] -> up?RENEWAL(nonce);
#ifndef GRANT_BEFORE_EVENTS
        /* Every event up to the current revision comes first. */
        if
        :: applied && !sent -> printf("authority: sends the event\n"); sent = true; down!EVENT(0, 0)
        :: else
        fi;
#endif
#ifdef EMBEDDED
        duration = LEASE;
#else
#ifdef GRANT_BEYOND_OWN_LEASE
        duration = LEASE;
#else
        /* Another replica waits no longer than for this one's lease, so no near cache may keep a lease after that. */
        duration = min(LEASE, lease);
#endif
#endif
        record = max(record, duration);
        printf("authority: grants %d for renewal %d\n", duration, nonce);
        down!GRANT(nonce, duration); nonce = 0; duration = 0
    }

    :: atomic {
        !broken && up?[ACKNOWLEDGEMENT(_)] -> up?ACKNOWLEDGEMENT(_);
        printf("authority: reads the acknowledgement\n"); acknowledged = true
    }

    :: atomic { !broken -> printf("authority: loses the stream\n"); loseStream() }

#ifdef EMBEDDED
    /* A restart: its records were in memory only. */
    :: atomic {
        printf("authority: restarts\n");  /* before the `if`: spin would take its `else` for one of the loop */
        if :: broken :: else -> loseStream() fi;
        recordBefore = 0; applied = committed;
#ifndef FORGET_AT_RESTART
        afterStart = LEASE
#endif
    }
#else
    /* A replica acknowledges a revision in the store only when every cache that follows it has. */
    :: atomic {
#ifdef REPLICA_IGNORES_CACHES
        applied && !storeAcknowledged ->
#else
        applied && cachesDone && !storeAcknowledged ->
#endif
        printf("authority: acknowledges in the store\n"); storeAcknowledged = true
    }
#endif
    od
}

#ifndef EMBEDDED
/* The replica follows the log and renews its lease: Follower.step in eventlog/follower.py, one step for each await. */
active proctype follower() {
end:
    do
    :: atomic { committed && !applied -> printf("follower: applies the revocation\n"); applied = true }

    :: atomic { printf("follower: reads its clock\n"); sinceRenewing = LEASE }
        atomic { printf("follower: records its renewal\n"); storeRecord = LEASE }
#ifndef REPLICA_COUNTS_BEFORE_LOG
        atomic { printf("follower: reads the log to its head\n"); applied = committed }
#endif
#ifdef REPLICA_COUNTS_FROM_RECEIPT
        atomic { printf("follower: counts on a full lease\n"); lease = LEASE; sinceRenewing = 0 }
#else
        atomic {
            printf("follower: counts on its lease\n"); lease = max(lease, sinceRenewing); sinceRenewing = 0
        }
#endif

    /* The process stops or is killed, and another takes its place, which reads the log before anything else. */
    :: atomic {
        printf("follower: another process takes its place\n");
        if :: broken :: else -> loseStream() fi;
        recordBefore = 0; lease = 0; applied = committed;
#ifndef FORGET_STOPPED_REPLICA
        storeRecordBefore = (storeAcknowledged -> storeRecordBefore : max(storeRecordBefore, storeRecord));
#endif
        storeRecord = 0; storeAcknowledged = false
    }
    od
}
#endif

/* RevokeSession with `wait`. */
active proctype revocation() {
    atomic { printf("revocation: is committed\n"); committed = true }
    if
    /* At the authority or replica that the near cache follows. Its own commit is applied before anybody is answered. */
    :: atomic { printf("revocation: is applied by the authority, and waits\n"); applied = true }
#ifdef EMBEDDED
        atomic { cachesDone && afterStart == 0 -> printf("revocation: returns\n"); returned = true }
#else
        atomic { cachesDone && storeRecordBefore == 0 -> printf("revocation: returns\n"); returned = true }

    /* At another replica: Follower.wait_for_replicas. It never waits longer than a lease. */
    :: atomic { printf("revocation: waits at another replica\n"); longest = LEASE }
        atomic {
            longest == 0 || (storeRecordBefore == 0 && (storeAcknowledged || storeRecord == 0)) ->
            printf("revocation: returns\n"); returned = true
        }
#endif
    fi
}
