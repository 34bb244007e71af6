/*
 * Rotation of tokens: renewals, and the roll at a login, while answers are late or lost.
 *
 * Properties, for an honest browser with two tabs:
 *
 *   one successor  whoever is handed a generation is handed the same token
 *   no alarm       no token with the current secret is too old, and no other token raises an alarm, but for the
 *                  exceptions at `alarm`
 *   no logout      an answer never deletes the cookie of a login that is newer than the answer
 *   rolled away    a token from before the roll is never VALID after it
 *
 * The rules: the table "Judging a token" in docs/design.md, in code sessiond/domain/judge.py;
 * docs/decisions/0014-lost-answers.md and 0015-a-login-always-works.md, in code sessiond/changes/login.py;
 * docs/decisions/0034-copies-keep-the-cookie.md, in code sessiond/domain/reactions.py.
 *
 *     spin -a rotation.pml
 *
 * The tabs share the cookie. Each sends one request after the other, a page or the login. A request or an answer
 * can get lost; otherwise each takes at most DELAY. The authority judges a request in one step, as a transaction
 * does. There is one roll at most, and GENERATIONS bounds the renewals.
 *
 * Time. A tick (process `time`) makes everything one older. An age stops growing once no rule depends on it any
 * more, so a user may also be away for as long as you like.
 *
 * Each #ifdef is a negative control: it removes a rule, an assumption or an exception, and spin must then find an
 * error.
 */

#define GENERATIONS 4
#define DELAY 1             /* how long a request, or its answer, takes at most */

#ifdef NO_OVERLAP
#define OVERLAP 0
#else
#define OVERLAP 2           /* renewal_overlap: longer than DELAY */
#endif
#ifdef SHORT_RENEWAL
#define RENEWAL OVERLAP     /* the configuration refuses this */
#elif defined(RENEWAL_WITHIN_REPEAT)
#define RENEWAL REPEAT      /* longer than OVERLAP by DELAY, and more; check-config warns of this */
#else
#define RENEWAL 5           /* renewal_timeout: at least DELAY longer than OVERLAP and than REPEAT */
#endif
#ifdef SHORT_ROLL_TOLERANCE
#define ROLL_TOLERANCE 2
#else
#define ROLL_TOLERANCE 3    /* roll_tolerance: longer than twice DELAY */
#endif
#ifdef NO_RESTART_AT_LATE_REPEAT
#define isLate false
#else
#define isLate (5 * sinceRoll >= ROLL_TOLERANCE)
#endif
#ifdef NO_LOST_ANSWER_TOLERANCE
#define LOST_ANSWER 0
#else
#define LOST_ANSWER 4       /* lost_answer_tolerance: AWAY at least */
#endif
#define AWAY 4              /* after the loss of a login's answer, the user comes back within this time */
#define REPEAT 4            /* how long a repeated login gets the first answer: the longer of the two tolerances */

/* `rolled` says whether the token is from after the roll. The rules do not look at it, only the properties do. */
typedef Token { byte generation; byte secret; bool rolled };

/* The session's row. */
Token current;              /* the current generation, and the secret, of which the row has the digest */
byte since;                 /* time since this generation began: generation_began */
byte sinceRoll;             /* time since the roll, or since the late repeat of its login: rolled_at */
bool used;                  /* there was activity after the roll: last_active > rolled_at */
bool oldTokenCame;          /* old_token: a token from before the roll came, and the new one was not used before that */
Token firstAnswer;          /* the first answer to the login, kept for its repetition: changes/idempotency.py */
byte sinceFirst;            /* time since it was given */
byte firstFrom;             /* the generation of the token that this login presented */

/* The browser. */
Token cookie;
bool loggedOut;             /* an answer deleted the cookie. The user logs in again, which opens another session */
bool overtaken;             /* a late answer from before the roll replaced the cookie from after it */

/* The two tabs. */
mtype = { IDLE, REQUEST, ANSWER };
mtype where[2] = IDLE;      /* what is on its way */
byte age[2];                /* for how long */
bool login[2];              /* whether the request is a login */
Token carried[2];           /* the token of the request or the answer */
mtype = { KEEP, REPLACE, DISCARD };
mtype step[2] = KEEP;       /* what the answer does with the cookie */

byte issued[10];            /* by generation, from 5 on after the roll: the secret of the token that was handed out */

#if defined(FRESH_SECRET) || defined(FORKED_CHAIN)
/* Each renewal makes a new secret. The row knows the newest one, and the one before the current one. */
byte successor, predecessor, newest = 2;
#define proven(token) ((token.generation == current.generation && token.secret == current.secret) || \
    (token.generation == current.generation + 1 && token.secret == successor) || \
    (token.generation + 1 == current.generation && token.secret == predecessor))
#else
#define proven(token) (token.secret == current.secret)
#endif

#define onTime(tab) (where[tab] == IDLE || age[tab] < DELAY)

/* The same login again, while the session is still at the token of the first answer. */
#define isRepeated(tab) (login[tab] && current.rolled && carried[tab].generation == firstFrom && \
    current.generation == firstAnswer.generation && sinceFirst < REPEAT)

proctype time() {
end:
    do
    :: d_step {
        onTime(0) && onTime(1) ->
        printf("time: a tick\n");
        since = (since < RENEWAL -> since + 1 : since);
        sinceRoll = (current.rolled && sinceRoll < AWAY -> sinceRoll + 1 : sinceRoll);
        sinceFirst = (current.rolled && sinceFirst < REPEAT -> sinceFirst + 1 : sinceFirst);
        age[0] = (where[0] == IDLE -> 0 : age[0] + 1);
        age[1] = (where[1] == IDLE -> 0 : age[1] + 1)
    }
    od
}

/* HIJACK_SUSPECTED. Both exceptions are rows of "Normal use" in docs/reference/configuration.md. */
#ifdef OVERTAKEN_COUNTS
#define exceptOvertaken false
#else
#define exceptOvertaken overtaken
#endif
#define exceptLostAnswer (current.rolled && !carried[tab].rolled && sinceRoll >= AWAY)
inline alarm() {
    assert(exceptOvertaken || exceptLostAnswer); step[tab] = DISCARD
}

/* The answer hands out a token of a generation, with the secret of the session. */
inline handOut(which) {
    step[tab] = REPLACE;
    carried[tab].generation = which;
    carried[tab].rolled = current.rolled;
    carried[tab].secret = current.secret;
#if defined(FRESH_SECRET) || defined(FORKED_CHAIN)
    if
    :: carried[tab].generation > current.generation -> newest++; successor = newest; carried[tab].secret = newest
    :: else
    fi;
#endif
    checkSuccessor()
}

inline checkSuccessor() {
    number = carried[tab].generation + (carried[tab].rolled -> 5 : 0);
#ifndef FORKED_CHAIN
    assert(issued[number] == 0 || issued[number] == carried[tab].secret);
    issued[number] = carried[tab].secret;
#endif
    number = 0
}

/* The table, from its row "digest matches" on. */
inline judge() {
    if
    :: proven(carried[tab]) ->
        if
        :: oldTokenCame -> alarm()  /* the second of two holders */
        :: else
        fi;
        if
        :: carried[tab].generation == current.generation ->
            valid = true;
            if
            :: since >= RENEWAL && current.generation < GENERATIONS -> handOut(current.generation + 1)
            :: else
            fi
        :: carried[tab].generation == current.generation + 1 ->
            valid = true; current.generation++; since = 0;
#if defined(FRESH_SECRET) || defined(FORKED_CHAIN)
            predecessor = current.secret; current.secret = successor; successor = 0;
#endif
        :: carried[tab].generation + 1 == current.generation && since < OVERLAP ->
            valid = true; handOut(current.generation)
        :: else -> assert(!proven(carried[tab]))  /* REPLAYED, with a signal: never, without any exception */
        fi
    :: !proven(carried[tab]) && current.rolled && sinceRoll < ROLL_TOLERANCE ->
        skip                                      /* SUPERSEDED */
    :: !proven(carried[tab]) && current.rolled && sinceRoll >= ROLL_TOLERANCE && sinceRoll < LOST_ANSWER && !used ->
        oldTokenCame = true                       /* REPLAYED without a signal: the new token may be on its way */
#ifdef MISSED_ROLL_DISCARDS
        ; step[tab] = DISCARD
#endif
    :: else ->
        alarm();
#ifndef COPY_DISCARDS
        if
        :: used -> step[tab] = KEEP               /* a copy, and the new token is in use */
        :: else
        fi
#endif
    fi
}

/* The login gets its first answer again: restart_tolerances in sessiond/changes/login.py. */
inline repeatLogin() {
    step[tab] = REPLACE; carried[tab].generation = firstAnswer.generation;
    carried[tab].secret = firstAnswer.secret; carried[tab].rolled = true;
    checkSuccessor();
    if
    :: oldTokenCame || isLate -> oldTokenCame = false; sinceRoll = 0; used = false
    :: else
    fi
}

proctype browser(byte tab) {
    byte number, presented;
    bool valid, isRolledAway;
end:
    do
    :: atomic {
        !loggedOut ->
        where[tab] = REQUEST; age[tab] = 0; carried[tab].generation = cookie.generation;
        carried[tab].secret = cookie.secret; carried[tab].rolled = cookie.rolled;
        if
        :: login[tab] = false; printf("tab %d: requests a page with generation %d\n", tab, cookie.generation)
        :: !cookie.rolled -> login[tab] = true; printf("tab %d: logs in with generation %d\n", tab, cookie.generation)
        fi
    }
    if
    :: atomic { printf("tab %d: the request is lost\n", tab) }

    :: atomic {
        printf("authority: judges tab %d; current generation %d, %d old; %d since the roll\n", tab, current.generation,
            since, sinceRoll);
        presented = carried[tab].generation; isRolledAway = current.rolled && !carried[tab].rolled;
        if
        :: isRepeated(tab) -> repeatLogin()
        :: else ->
            judge();
            assert(!(valid && isRolledAway));
            used = used || (valid && current.rolled);
            if
            :: valid && login[tab] && !current.rolled && current.generation < GENERATIONS ->
                current.generation++; since = 0; current.rolled = true;
#ifndef ROLL_KEEPS_SECRET
                current.secret = 2;
#endif
                firstFrom = presented;
                firstAnswer.generation = current.generation; firstAnswer.secret = current.secret;
                handOut(current.generation)
            :: else
            fi
        fi;
        printf("authority: its answer for tab %d: valid %d, %e generation %d\n", tab, valid, step[tab],
            carried[tab].generation);
        where[tab] = ANSWER; age[tab] = 0; login[tab] = false; valid = false; presented = 0; isRolledAway = false
        }
        if
        :: atomic { printf("tab %d: the answer is lost\n", tab) }

        :: atomic {
            printf("tab %d: the answer arrives\n", tab);
            if
            :: step[tab] == KEEP
            :: step[tab] == REPLACE ->
                overtaken = overtaken || (cookie.rolled && !carried[tab].rolled);
                cookie.generation = carried[tab].generation; cookie.secret = carried[tab].secret;
                cookie.rolled = carried[tab].rolled; loggedOut = false
            :: step[tab] == DISCARD -> assert(!cookie.rolled); loggedOut = true
            fi
        }
        fi
    fi;
    atomic {
        where[tab] = IDLE; age[tab] = 0; login[tab] = false; step[tab] = KEEP;
        carried[tab].generation = 0; carried[tab].secret = 0; carried[tab].rolled = false
    }
    od
}

init {
    atomic { current.secret = 1; cookie.secret = 1; run time(); run browser(0); run browser(1) }
}
