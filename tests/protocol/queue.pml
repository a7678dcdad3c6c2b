/* The life of an order from its acceptance to its end, as a model for Spin. The product's side of it:
 * schema/queue/{exchange,completion,endings,rescue,retries,workers}.py and
 * orders_worker/{dispatcher,attempt,commit,transaction}.py; the names are theirs.
 *
 * A d_step is one statement of the database, atomic as PostgreSQL makes it: it skips locked rows and
 * changes nothing that its WHERE does not find. What the dispatcher sends, exchange or end, takes two
 * steps: its worker may be declared dead between snapshot and commit, and once its client is gone it
 * commits at any later time, also after the reconnect, or never. Whatever goes wrong costs one of FAULTS
 * (only handlers raise for nothing) and may go wrong at any moment.
 *
 * Left out:
 * - time: what the product's clocks rule out is ruled out here by a guard, and a comment says so. So there
 *   is no backoff, and a process that died is found at once, without the grace of a lost session;
 * - the bounds of the sweep by oldest_claim_at and started_at: it sees every order of a dead worker;
 * - the patrol: nothing here edits rows by hand;
 * - leave: who stops hands back and is then as good as killed;
 * - reject, and statements that the database refuses, with _write_singly;
 * - cancel, redrive, pause, tickets and the floor; more than one slot in a worker.
 */
#ifndef ORDERS
#define ORDERS 1
#endif
#ifndef FAULTS
#define FAULTS 2
#endif
#ifndef POISON
#define POISON 0         /* 1: working on the first order kills the process */
#endif
#ifndef WITHOUT
#define WITHOUT nothing
#endif
#define without(fence) (WITHOUT == fence)
#define MAX_ATTEMPTS 2
#define SLOTS 3          /* a thread for each process's attempt, and one that was given up and goes on */
#define NONE 255

mtype = { pending, processing, retrying, completed, failed };                         /* status */
mtype = { nothing, claimed, started, returned, raised, timed_out, released, rescued };   /* outcome */
mtype = { none, open, locking, broken, committing, deserted };                        /* transaction */
mtype = { attempt_in_fence, worker_id_in_fence, status_in_fence, dead_at_in_exchange, dead_at_in_heartbeat,
    status_in_sweep, delay_in_mark_swept, sweep, recover_claims, second_look, completion_in_transaction,
    resolving_commit, idle_timeout, count_at_claim, fence_in_complete };                  /* WITHOUT */

/* In the database. A worker_id that nothing refers to any more stands for a new one; 0 is nobody. */
typedef Order {
    mtype status = pending;
    byte attempt;
    byte attempt_limit = MAX_ATTEMPTS;
    byte worker_id;
    bool locked;             /* a handler's open transaction has completed it and not yet committed */
    byte effects             /* what handlers have committed for it */
};
typedef Worker { bool dead_at = true; bool swept_at = true };
Order orders[ORDERS];
Worker workers[6];

/* On its way, an exchange or an end: number p is that of process p, p + 2 one whose client has gone. */
typedef Exchange {
    bool sent;
    bool alive;              /* what its snapshot says of the worker */
    byte worker_id;
    byte finished = NONE;    /* an order, and */
    byte attempt;
    mtype outcome = nothing  /* returned is for the exchange, the others are for end, which claims nothing */
};
Exchange exchanges[4];

/* In the memory of the worker processes: the claim in hand, and the attempts in their threads. */
typedef Process {
    byte worker_id;
    byte order = NONE;
    byte attempt;
    mtype outcome = nothing;
    byte recoveries
};
typedef Attempt {
    bool running;
    bool wanted;             /* its dispatcher still waits for it */
    byte process;
    byte order;
    byte attempt;
    byte worker_id;
    mtype transaction = none
};
Process processes[2];
Attempt attempts[SLOTS];

byte faults = FAULTS;
hidden byte o, i, s;         /* mean something within one step only */

/* The promises, each checked wherever it could break. */
#define is_final(o) (orders[o].status == completed || orders[o].status == failed)
inline only_its_attempt_ends_it(row, nth, who) {
    assert(without(fence_in_complete) ||         /* where this would hide that effects double */
        orders[row].status == processing && orders[row].attempt == nth && orders[row].worker_id == who)
}
inline the_dead_gain_no_claim(x) { assert(exchanges[x].alive) }
inline takes_effect_once(row) { orders[row].effects++; assert(orders[row].effects <= 1) }
inline has_effect_if_completed(row) {
    assert(!is_final(row) || (orders[row].status == completed) == orders[row].effects)
}
inline is_not_lost(row) {
    assert(orders[row].status != processing || !workers[orders[row].worker_id].swept_at)
}
ltl every_order_ends { <> (is_final(0) && is_final(ORDERS - 1)) }

/* Statements. */

#define held(row, nth, who) ( \
    (without(status_in_fence) || orders[row].status == processing) && \
    (without(attempt_in_fence) || orders[row].attempt == nth) && \
    (without(worker_id_in_fence) || orders[row].worker_id == who))

inline complete(row, nth, who) {
    printf("order %d is completed by id %d, attempt %d\n", row, who, nth);
    only_its_attempt_ends_it(row, nth, who);
    orders[row].status = completed
}

inline move(row, how) {                          /* NEXT_STATE and MOVE */
    if :: without(count_at_claim) && how != rescued -> orders[row].attempt++ :: else fi;
    if
    :: how == released -> orders[row].attempt_limit++; orders[row].status = pending
    :: how != released && orders[row].attempt >= orders[row].attempt_limit -> orders[row].status = failed
    :: how == rescued && orders[row].attempt < orders[row].attempt_limit -> orders[row].status = pending
    :: else -> orders[row].status = retrying
    fi;
    if :: orders[row].status != failed -> orders[row].worker_id = 0 :: else fi;
    printf("order %d is %e, its attempt was %e\n", row, orders[row].status, how);
    has_effect_if_completed(row)
}

inline end(row, nth, who, how) {
    if
    :: held(row, nth, who) -> only_its_attempt_ends_it(row, nth, who); move(row, how)
    :: else                                      /* lost: nothing is written */
    fi
}

#define is_ending(how) (how == raised || how == timed_out || how == released)

inline exchange_begins(x, who, row, nth, how) {
    exchanges[x].sent = true;
    exchanges[x].alive = !workers[who].dead_at;
    exchanges[x].worker_id = who;
    exchanges[x].finished = row;
    exchanges[x].attempt = nth;
    exchanges[x].outcome = how
}

inline exchange_commits(x) {                     /* leaves in o the order that it has claimed, or ORDERS */
    if
    :: is_ending(exchanges[x].outcome) && !orders[exchanges[x].finished].locked ->
        end(exchanges[x].finished, exchanges[x].attempt, exchanges[x].worker_id, exchanges[x].outcome)
    :: exchanges[x].outcome == returned && !orders[exchanges[x].finished].locked &&
       held(exchanges[x].finished, exchanges[x].attempt, exchanges[x].worker_id) ->
        complete(exchanges[x].finished, exchanges[x].attempt, exchanges[x].worker_id);
        if
        :: !without(completion_in_transaction) -> takes_effect_once(exchanges[x].finished)
        :: else                                  /* then every handler has committed its own */
        fi;
        has_effect_if_completed(exchanges[x].finished)
    :: else
    fi;
    o = 0;
    do :: o < ORDERS && orders[o].status != pending -> o++ :: else -> break od;
    if
    :: o < ORDERS && !is_ending(exchanges[x].outcome) &&
       (exchanges[x].alive || without(dead_at_in_exchange)) ->
        orders[o].status = processing;
        orders[o].worker_id = exchanges[x].worker_id;
        if :: !without(count_at_claim) -> orders[o].attempt++ :: else fi;
        printf("order %d is claimed by id %d, attempt %d\n", o, orders[o].worker_id, orders[o].attempt);
        the_dead_gain_no_claim(x);
        is_not_lost(o)
    :: else -> o = ORDERS
    fi
}

inline exchange_is_over(x) {
    exchanges[x].sent = false; exchanges[x].alive = false; exchanges[x].worker_id = 0;
    exchanges[x].finished = NONE; exchanges[x].attempt = 0; exchanges[x].outcome = nothing
}

#define in_orders(w) (orders[0].worker_id == w || orders[ORDERS - 1].worker_id == w)
#define in_exchanges(w) (exchanges[0].worker_id == w || exchanges[1].worker_id == w || \
    exchanges[2].worker_id == w || exchanges[3].worker_id == w)
#define in_attempts(w) (attempts[0].worker_id == w || attempts[1].worker_id == w || attempts[2].worker_id == w)
#define in_processes(w) (processes[0].worker_id == w || processes[1].worker_id == w)
#define is_new(w) (workers[w].swept_at && \
    !in_processes(w) && !in_orders(w) && !in_exchanges(w) && !in_attempts(w))

/* A worker process: its dispatcher and its heartbeat. Each option is one statement, or something that only
 * the process itself can see. */

#define me processes[my]
#define FIRST 2
#define SECOND 1
#define some_pending (orders[0].status == pending || orders[ORDERS - 1].status == pending)
#define has_ended (me.outcome == returned || is_ending(me.outcome))
#define is_busy (has_ended && held(me.order, me.attempt, me.worker_id) && orders[me.order].locked)
#define place_in(s) (!attempts[s].running && attempts[s].transaction == none)

inline drops(my) { me.order = NONE; me.attempt = 0; me.outcome = nothing }

inline gives_up(my) {                            /* the attempt, which may well go on */
    for (s : 0 .. SLOTS - 1) {
        if :: attempts[s].process == my -> attempts[s].wanted = false :: else fi
    }
    s = 0                                        /* a d_step must not end in a loop */
}

inline forgets_all(my) {                         /* and its session is gone */
    printf("process %d forgets that it was id %d\n", my, me.worker_id);
    me.worker_id = 0;
    me.recoveries = 0;
    drops(my);
    gives_up(my)
}

inline leaves_behind(my) {                       /* an exchange that is still on its way */
    if
    :: exchanges[my].sent ->
        exchange_begins(my + 2, exchanges[my].worker_id, exchanges[my].finished, exchanges[my].attempt,
            exchanges[my].outcome);
        exchanges[my + 2].alive = exchanges[my].alive;
        exchange_is_over(my)
    :: else
    fi
}

#define can_die(my) !(exchanges[my].sent && exchanges[my + 2].sent)
inline dies(my) { leaves_behind(my); forgets_all(my) }

inline recovers_claims(my) {
    for (o : 0 .. ORDERS - 1) {
        if
        :: orders[o].status == processing && orders[o].worker_id == me.worker_id && o != me.order ->
            if
            :: me.order == NONE ->
                printf("process %d adopts order %d\n", my, o);
                me.order = o; me.attempt = orders[o].attempt; me.outcome = claimed
            :: else -> move(o, released)
            fi
        :: else
        fi
    }
    o = 0
}

active [2] proctype worker() {
    byte my = _pid;
    do
    :: d_step {                                  /* register */
        me.worker_id == 0 && (is_new(1) || is_new(2) || is_new(3) || is_new(4) || is_new(5)) ->
        i = 1;
        do :: !is_new(i) -> i++ :: else -> break od;
        printf("process %d registers as id %d\n", my, i);
        me.worker_id = i;
        workers[i].dead_at = false;
        workers[i].swept_at = false
        }
    :: d_step {                                  /* beat: it learns that it is dead */
        me.worker_id != 0 && workers[me.worker_id].dead_at && !exchanges[my].sent -> forgets_all(my)
        }
    :: d_step { without(dead_at_in_heartbeat) && me.worker_id != 0 -> workers[me.worker_id].dead_at = false }
    :: d_step {
        faults > 0 && me.worker_id != 0 && can_die(my) -> faults--;
        printf("process %d is killed\n", my);
        dies(my)
        }

    /* recover_claims: when the connection was lost, and twenty seconds later, when nothing that it carried can
     * commit any more and what had ended has been handed in again */
    :: d_step {
        me.recoveries == FIRST ->
        me.recoveries = (without(second_look) || without(recover_claims) -> 0 : SECOND);
        if :: !without(recover_claims) -> recovers_claims(my) :: else fi
        }
    :: d_step {
        me.recoveries == SECOND && !is_ending(me.outcome) &&
        !exchanges[my].sent && !exchanges[my + 2].sent ->
        me.recoveries = 0;
        recovers_claims(my)
        }

    :: d_step {                                  /* exchange, or end */
        (has_ended || me.order == NONE && me.worker_id != 0 && some_pending) &&
        me.recoveries != FIRST && !exchanges[my].sent && !is_busy ->
        exchange_begins(my, me.worker_id, me.order, me.attempt, me.outcome)
        }
    :: d_step {                                  /* and it is answered */
        exchanges[my].sent && !is_busy ->
        exchange_commits(my);
        drops(my);
        if
        :: o < ORDERS -> me.order = o; me.attempt = orders[o].attempt; me.outcome = claimed
        :: o == ORDERS && !exchanges[my].alive && !is_ending(exchanges[my].outcome) -> forgets_all(my)
        :: else
        fi;
        exchange_is_over(my)
        }
    :: d_step { exchanges[my].sent && is_busy -> exchange_is_over(my) }     /* it will be handed in again */
    :: d_step {                                  /* or never, and what had ended will be handed in again */
        faults > 0 && exchanges[my].sent && !exchanges[my + 2].sent -> faults--;
        printf("process %d loses its connection and learns of nothing\n", my);
        leaves_behind(my);
        me.recoveries = FIRST
        }

    :: d_step {                                  /* a claim goes to a slot */
        me.outcome == claimed && (place_in(0) || place_in(1) || place_in(2)) ->
        s = 0;
        do :: !place_in(s) -> s++ :: else -> break od;
        attempts[s].running = true;
        attempts[s].wanted = true;
        attempts[s].process = my;
        attempts[s].order = me.order;
        attempts[s].attempt = me.attempt;
        attempts[s].worker_id = me.worker_id;
        me.outcome = started
        }
    :: d_step { faults > 0 && me.outcome == started -> faults--; gives_up(my); me.outcome = timed_out }
    :: d_step { faults > 0 && me.outcome == started -> faults--; gives_up(my); me.outcome = released }
    od
}

/* A slot: a handler in a thread. One that was given up, or whose process is dead, goes on as if nothing
 * had happened, or stops anywhere: the model trusts the fence alone, not that a thread can be cut off. */

#define it attempts[k]
#define its orders[attempts[k].order]
#define is_mine held(it.order, it.attempt, it.worker_id)
#define completes (is_mine || without(fence_in_complete))
#define is_poison (POISON && it.order == 0)
#define in_handler (it.running && it.transaction == none && !resolving)

inline tidies(k) {                               /* a transaction that has the row is the server's to end */
    if
    :: !it.running && it.transaction != committing && it.transaction != deserted ->
        it.transaction = none; it.process = 0; it.order = 0; it.attempt = 0; it.worker_id = 0
    :: else
    fi
}

inline is_over(k) { it.running = false; it.wanted = false; tidies(k) }

inline reports(k, what) {
    if :: it.wanted -> processes[it.process].outcome = what :: else fi;
    is_over(k)
}

inline reports_settled(k) {                      /* nothing is left to write */
    if :: it.wanted -> drops(it.process) :: else fi;
    is_over(k)
}

inline commits(k) {
    its.locked = false;
    it.transaction = none;
    complete(it.order, it.attempt, it.worker_id);
    takes_effect_once(it.order);
    has_effect_if_completed(it.order)
}

inline rolls_back(k, to) { its.locked = false; it.transaction = to }

active [SLOTS] proctype slot() {
    byte k = _pid - 2;
    bool resolving;
    do
    /* the handler */
    :: d_step { in_handler && can_die(it.process) && is_poison -> dies(it.process); is_over(k) }
    :: d_step { in_handler && !is_poison && !without(completion_in_transaction) -> reports(k, returned) }
    :: d_step { in_handler && !is_poison -> reports(k, raised) }
    :: d_step { in_handler && !is_poison -> it.transaction = open }         /* BEGIN and its own writes */
    :: d_step { without(completion_in_transaction) && it.transaction == open ->
        printf("what attempt %d wrote for order %d is committed\n", it.attempt, it.order);
        it.transaction = none;
        takes_effect_once(it.order);
        reports(k, returned)
        }

    /* complete, then COMMIT, and _resolve if that is not answered */
    :: d_step {
        it.transaction == open && completes && !its.locked -> it.transaction = locking; its.locked = true
        }
    :: d_step { it.transaction == open && !completes -> it.transaction = none; reports_settled(k) }
    :: d_step { it.transaction == locking -> commits(k); reports_settled(k) }
    :: d_step {
        faults > 0 && it.transaction == locking -> faults--;
        printf("COMMIT of order %d, attempt %d is not answered\n", it.order, it.attempt);
        it.transaction = committing;
        resolving = true
        }
    :: d_step { it.running && it.transaction == broken -> it.transaction = none; resolving = true }

    :: d_step { resolving && without(resolving_commit) -> resolving = false; reports_settled(k) }
    :: d_step { resolving && !is_mine -> resolving = false; reports_settled(k) }      /* completed, or lost */
    :: d_step { resolving && is_mine && !its.locked -> resolving = false; reports(k, raised) }

    :: d_step {                                  /* it stops */
        it.running && !it.wanted ->
        if
        :: it.transaction == locking ->
            printf("a handler stops, its transaction has order %d\n", it.order);
            it.transaction = deserted
        :: else
        fi;
        resolving = false;
        is_over(k)
        }
    od
}

/* The server ends what clients have left. It may crash, and a lease may run out. */

#define is_ended(k) (attempts[k].transaction == committing || \
    attempts[k].transaction == deserted && !without(idle_timeout))

inline crashes() {
    for (i : 0 .. 3) {
        if :: i < 2 && exchanges[i].sent -> processes[i].recoveries = FIRST :: else fi;
        exchange_is_over(i)
    }
    for (s : 0 .. SLOTS - 1) {
        if
        :: attempts[s].transaction == open || attempts[s].transaction == locking -> rolls_back(s, broken)
        :: attempts[s].transaction == committing || attempts[s].transaction == deserted -> rolls_back(s, none)
        :: else
        fi;
        tidies(s)
    }
    s = 0
}

/* A step for each index. All of a kind stand in one line, because coverage is counted by lines. */
#define COMMITS_LATE(x) :: d_step { exchanges[x].sent -> exchange_commits(x); exchange_is_over(x) }
#define NEVER_COMMITS(x) :: d_step { exchanges[x].sent -> exchange_is_over(x) }
#define COMMITS_UNHEARD(k) :: d_step { attempts[k].transaction == committing -> commits(k); tidies(k) }
#define ROLLS_BACK(k) :: d_step { is_ended(k) -> rolls_back(k, none); tidies(k) }
#define LEASE_RUNS_OUT(w) \
    :: d_step { \
        faults > 0 && !workers[w].dead_at && in_processes(w) -> faults--; \
        printf("id %d is declared dead while it lives: its lease has run out\n", w); \
        workers[w].dead_at = true \
        }

active proctype server() {
    do
    COMMITS_LATE(2) COMMITS_LATE(3)
    NEVER_COMMITS(2) NEVER_COMMITS(3)
    COMMITS_UNHEARD(0) COMMITS_UNHEARD(1) COMMITS_UNHEARD(2)
    ROLLS_BACK(0) ROLLS_BACK(1) ROLLS_BACK(2)
    LEASE_RUNS_OUT(1) LEASE_RUNS_OUT(2) LEASE_RUNS_OUT(3) LEASE_RUNS_OUT(4) LEASE_RUNS_OUT(5)
    :: d_step { faults > 0 -> faults--; printf("the server crashes\n"); crashes() }
    :: d_step { faults > 0 -> faults-- }         /* a fault is spared, so that fairness forces none */
    od
}

/* Housekeeping, which any worker does for all. A process that has died holds no session lock. */

#define is_orphan(o) (workers[orders[o].worker_id].dead_at && !orders[o].locked && \
    (orders[o].status == processing || without(status_in_sweep) && orders[o].worker_id != 0))
#define holds(o, w) (orders[o].status == processing && orders[o].worker_id == w)
/* Two leases after a death nothing that the dead had sent is on its way any more. */
#define is_swept(w) (workers[w].dead_at && !workers[w].swept_at && !holds(0, w) && !holds(ORDERS - 1, w) && \
    (!in_exchanges(w) || without(delay_in_mark_swept)))

#define is_gone(w) (!workers[w].dead_at && !in_processes(w))
#define DECLARE_DEAD(w) :: d_step { is_gone(w) -> printf("id %d is dead\n", w); workers[w].dead_at = true }
#define SWEEP(o) :: d_step { is_orphan(o) && !without(sweep) -> move(o, rescued) }
#define MARK_SWEPT(w) :: d_step { is_swept(w) -> printf("id %d is swept\n", w); workers[w].swept_at = true }
#define RETURN_DUE(o) :: d_step { orders[o].status == retrying -> orders[o].status = pending }

active proctype housekeeping() {
    do
    DECLARE_DEAD(1) DECLARE_DEAD(2) DECLARE_DEAD(3) DECLARE_DEAD(4) DECLARE_DEAD(5)
    SWEEP(0) SWEEP(ORDERS - 1)
    MARK_SWEPT(1) MARK_SWEPT(2) MARK_SWEPT(3) MARK_SWEPT(4) MARK_SWEPT(5)
    RETURN_DUE(0) RETURN_DUE(ORDERS - 1)
    od
}
