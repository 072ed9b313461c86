/* Nodes that take, write and free sessions over connections that break, and fence each other at any moment.
 *
 * A model of crdt_sessions/storage/postgres: lane.py (Node), statements.py (Serve), nodes.py and fencing.py (Lookout). A statement
 * commits sooner or later, or never, whether or not somebody still listens: that is where mistakes are made.
 * Rows of a log are numbers; who wrote which is in `written`. No clock is in it: anybody may be fenced at any time.
 *
 *     spin -DNODES=2 -DSESSIONS=1 -DCUTS=1 -DFREES=1 -a fence.pml && cc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -E
 *
 * With one of -DNO_FENCE, -DSNAPSHOT, -DNO_NUMBER, -DGUESS, -DONE_STEP, -DNO_WAIT it is a mistake that pan must find.
 */

#ifndef NODES
#define NODES 3
#endif
#ifndef SESSIONS
#define SESSIONS 2
#endif
#ifndef ROWS
#define ROWS 2
#endif
#ifndef CUTS
#define CUTS 2
#endif
#ifndef FREES
#define FREES 2
#endif
#define NOBODY NODES

mtype = { TAKE, APPEND, RELEASE }
mtype = { NONE, DONE, NOTHING, REFUSED }

/* The database: a row for each node's lane, an owner and a log for each session. */
bool fenced[NODES];
byte commits[NODES];
byte owner[SESSIONS];
byte end[SESSIONS];
byte written[SESSIONS * ROWS];

/* A node has a connection, and the one before it, which may do what it was told when nobody listens any more. */
typedef Connection {
    bool busy;          /* a statement was sent */
#ifdef SNAPSHOT
    bool seen;          /* it has its snapshot, */
    bool saw_fence;     /* which says so */
#endif
    bool ended;         /* it was told to end */
    mtype what;
    mtype answer;
    byte session;
    byte seq;
    byte from;          /* the owner that was read */
    byte number;        /* of the commit */
}
Connection to[NODES * 2];
byte cuts = 0;          /* how often a connection broke, */
byte frees = 0;         /* and a session was set free: without a bound there would be no end */

#ifdef NO_FENCE
#define LET_PASS true
#else
#ifdef SNAPSHOT
#define LET_PASS (!it.saw_fence)
#else
#define LET_PASS (!fenced[node])
#endif
#endif
#ifdef NO_NUMBER
#define IN_TURN true
#else
#define IN_TURN (commits[node] == it.number - 1)
#endif
#ifdef NO_WAIT
#define FREE(s) true
#else
#define FREE(s) (owner[s] == NOBODY || fenced[owner[s]])
#endif

#define it to[which]

inline commit() {
    if
    :: !(LET_PASS && IN_TURN) -> it.answer = REFUSED
    :: else ->
        if
        :: it.what == TAKE && owner[it.session] != it.from -> it.answer = NOTHING
        :: it.what == TAKE && owner[it.session] == it.from ->
            assert(!fenced[node]);
            owner[it.session] = node;
            commits[node]++;
            it.answer = DONE
        :: it.what == RELEASE ->
            assert(!fenced[node]);
            assert(owner[it.session] == node);
            owner[it.session] = NOBODY;
            commits[node]++;
            it.answer = DONE
        :: it.what == APPEND ->
            assert(!fenced[node]);                         /* nothing is stored behind a fence */
            assert(owner[it.session] == node);             /* one owner at a time */
            assert(it.seq == end[it.session] + 1);         /* no fork, no gap, nothing twice */
            end[it.session] = it.seq;
            written[it.session * ROWS + it.seq - 1] = node + 1;
            commits[node]++;
            it.answer = DONE
        fi
    fi;
    over()
}

inline over() {
#ifdef SNAPSHOT
    it.seen = false; it.saw_fence = false;
#endif
    it.busy = false; it.ended = false; it.what = NONE; it.session = 0; it.seq = 0; it.from = 0; it.number = 0
}

proctype Serve(byte which) {
    byte node = which / 2;
end_serve:
    do
#ifdef SNAPSHOT
    :: atomic { it.busy && !it.seen -> it.saw_fence = fenced[node]; it.seen = true }
    :: atomic { it.busy && it.seen -> commit() }
#else
    :: atomic { it.busy -> commit() }
#endif
    :: atomic { it.busy && it.ended -> over() }    /* sooner or later */
    od
}

proctype Lookout() {
end_lookout:
    do
    :: atomic { !fenced[0] -> fenced[0] = true }
    :: atomic { !fenced[1] -> fenced[1] = true }
#if NODES > 2
    :: atomic { !fenced[2] -> fenced[2] = true }
#endif
    od
}

#define mine to[me * 2 + slot]

/* Send a statement; where the answer is lost, look up what became of it. */
inline write(w, s, q, f) {
    atomic {
        mine.what = w; mine.session = s; mine.seq = q; mine.from = f; mine.number = known + 1;
        mine.answer = NONE; mine.busy = true
    }
    if
    :: atomic { mine.answer != NONE -> result = mine.answer; mine.answer = NONE }
    :: atomic { cuts < CUTS && !to[me * 2 + 1 - slot].busy ->
        cuts++;
        mine.ended = true;
        slot = 1 - slot };
        atomic {
#ifdef GUESS
            result = DONE;
#else
            result = (commits[me] > known -> DONE : (fenced[me] -> REFUSED : NONE));
#endif
        }
    fi;
    if
    :: result == DONE -> known++
    :: result == REFUSED -> lost = true
    :: else -> skip
    fi
}

inline take() {
    write(TAKE, s, 0, from);
    atomic {
        if
        :: result == DONE ->
#ifndef ONE_STEP
            seq = end[s];
#endif
            head[s] = seq; has[s] = true
        :: else -> skip
        fi;
        seq = 0; from = 0; result = NONE
    }
}

inline append() {
    write(APPEND, s, seq, 0);
    atomic {
        if
        :: result == DONE ->
            assert(written[s * ROWS + seq - 1] == me + 1);    /* what is acknowledged is there, and one's own */
            head[s] = seq
        :: result == NONE -> has[s] = false                   /* heads are forgotten with a connection */
        :: else -> skip
        fi;
        seq = 0; result = NONE
    }
}

#define MAY_TAKE(x) (!lost && !has[x] && owner[x] != me && FREE(x))
#define MAY_LOOK(x) (!lost && !has[x] && owner[x] == me)    /* an answer was lost */
#define MAY_WRITE(x) (!lost && has[x] && head[x] < ROWS)
#define MAY_FREE(x) (!lost && has[x] && frees < FREES)

proctype Node(byte me) {
    byte known = 0, slot = 0, s, from, seq;
    byte head[SESSIONS];
    bool has[SESSIONS];
    bool lost = false;
    mtype result = NONE;
end_node:
    do
    :: lost -> break
    :: atomic { MAY_TAKE(0) -> s = 0; from = owner[s]; seq = end[s] }; take()
    :: atomic { MAY_LOOK(0) -> head[0] = end[0]; has[0] = true }
    :: atomic { MAY_WRITE(0) -> s = 0; seq = head[s] + 1 }; append()
    :: atomic { MAY_FREE(0) -> s = 0; has[s] = false; frees++ }; write(RELEASE, s, 0, 0); result = NONE
#if SESSIONS > 1
    :: atomic { MAY_TAKE(1) -> s = 1; from = owner[s]; seq = end[s] }; take()
    :: atomic { MAY_LOOK(1) -> head[1] = end[1]; has[1] = true }
    :: atomic { MAY_WRITE(1) -> s = 1; seq = head[s] + 1 }; append()
    :: atomic { MAY_FREE(1) -> s = 1; has[s] = false; frees++ }; write(RELEASE, s, 0, 0); result = NONE
#endif
    od
}

init {
    byte n;
    atomic {
        for (n : 0 .. SESSIONS - 1) { owner[n] = NOBODY }
        for (n : 0 .. NODES * 2 - 1) { to[n].answer = NONE; to[n].what = NONE; run Serve(n) }
        for (n : 0 .. NODES - 1) { run Node(n) }
        run Lookout()
    }
}
