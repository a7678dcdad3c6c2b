/* An order's acceptance, as a model for Spin. The product's side of it: schema/queue/idempotency.py and
 * orders_api/resources/orders.py; the names are theirs.
 *
 * A client sends one order under one Idempotency-Key until it is answered, and may lose patience and
 * send it again while an earlier request is still being served. A d_step is atomic in the database; the
 * key's unique index makes a second insert wait for the first one's transaction. An API process, the
 * server or a connection may fail at any moment, FAULTS times altogether. Pruning is left out.
 */
#ifndef FAULTS
#define FAULTS 3
#endif

mtype = { absent, uncommitted, committed };

mtype idempotency_key = absent;
byte key_order_id;       /* the order in the key's row */
byte orders;             /* how many are committed */
byte order_ids;          /* how many have been drawn */
byte told;               /* the order_id that the client was answered */
byte requests;           /* being served */
byte faults = FAULTS;

#ifdef WITHOUT_UNIQUE_KEY
#define is_fresh (idempotency_key != committed)
#else
#define is_fresh (idempotency_key == absent)
#endif

/* The promises. */
inline is_placed_once() { assert(orders <= 1) }
inline is_what_the_key_stands_for(order) { assert(orders > 0 && order == key_order_id) }
ltl client_is_answered { <> (told != 0) }

inline answers(order) {
    printf("the client is told order %d\n", order);
    is_what_the_key_stands_for(order);
    told = order
}

proctype submit_once() {
    byte order_id;

    if                                           /* _insert */
    :: d_step { is_fresh -> order_ids++; order_id = order_ids; idempotency_key = uncommitted }
    :: idempotency_key == committed -> goto find
    :: d_step { faults > 0 -> faults-- } goto lost
    fi;
#ifdef KEY_APART
    d_step { printf("order %d is committed\n", order_id); orders++; is_placed_once() }
    if
    :: d_step { idempotency_key = committed; key_order_id = order_id }
#else
    if
    :: d_step {
        printf("order %d is committed with its key\n", order_id);
        idempotency_key = committed; key_order_id = order_id;
        orders++;
        is_placed_once()
        }
#endif
    :: d_step {
        faults > 0 -> faults--;
        printf("the transaction with order %d's key is rolled back\n", order_id);
        idempotency_key = absent
        }
        goto lost
    fi;
    if
    :: d_step { answers(order_id) }
    :: d_step { faults > 0 -> faults--; printf("the answer, order %d, is lost\n", order_id) }
    fi;
    goto lost;

find:
    if
#ifdef OWN_ORDER_ID
    :: d_step { order_ids++; answers(order_ids) }
#else
    :: d_step { answers(key_order_id) }
#endif
    :: d_step { faults > 0 -> faults--; printf("the answer, order %d again, is lost\n", key_order_id) }
    fi;

lost:
    requests--
}

active proctype client() {
    do
    :: atomic { told == 0 && requests == 0 -> requests++; run submit_once() }
    :: atomic { told == 0 && requests > 0 && faults > 0 -> faults--; requests++; run submit_once() }
    :: told != 0 -> break
    od
}
