/* The pool as a state machine: two workers' pools over one shared memory, with sessions that this
 * test opens, breaks and cleans as the steps of a story say. No PostgreSQL, no waiting: the clock
 * is the loop's `now`, which the test moves. */
#include "pool.h"

#include <stdlib.h>
#include <unistd.h>

#include "arena.h"
#include "pg.h"
#include "pg_target.h"
#include "shared.h"
#include "test.h"

enum { WORKERS = 2, CUSTOMERS = 8, SESSIONS = 64 };

/* -- Sessions: the stand-in for pg.c -- */

static struct pg *sessions[SESSIONS]; /* oldest first */
static size_t session_count;
static unsigned faults; /* calls in a wrong state, and permits over the maximum */

struct pg *pg_open(struct loop *loop, struct helper *helper, struct pg_target *target,
                   const struct pg_events *events, void *owner, uint64_t deadline)
{
    struct pg *pg = memory_zalloc(sizeof *pg);
    list_init(&pg->link);
    pg->state = PG_CONNECTING;
    pg->loop = loop;
    pg->events = events;
    pg->owner = owner;
    faults += session_count == SESSIONS;
    sessions[session_count++] = pg;
    return pg;
}

void pg_lend(struct pg *pg)
{
    faults += pg->state != PG_IDLE;
    pg->state = PG_LENT;
}

/* In these stories a session is dirty where its holder wants something cancelled. */
bool pg_release(struct pg *pg, bool cancel)
{
    faults += pg->state != PG_LENT;
    pg->state = cancel ? PG_CLEANING : PG_IDLE;
    pg->idle_since = pg->loop->now;
    pg->heard_at = pg->loop->now;
    return !cancel;
}

void pg_check(struct pg *pg)
{
    faults += pg->state != PG_IDLE;
    pg->state = PG_CHECKING;
}

/* In these stories a session has something to say when it is worn. */
bool pg_is_quiet(const struct pg *pg)
{
    return !pg->pipeline.retire;
}

bool pg_is_worn(const struct pg *pg)
{
    return pg->pipeline.retire;
}

void pg_close(struct pg *pg)
{
    faults += pg->state == PG_LENT || pg->state == PG_CLOSING;
    pg->state = PG_CLOSING;
}

void pg_destroy(struct pg *pg)
{
    size_t i = 0;
    while (sessions[i] != pg) {
        i++;
    }
    session_count--;
    memmove(&sessions[i], &sessions[i + 1], (session_count - i) * sizeof *sessions);
    free(pg);
}

bool pg_turned_read_only(const struct pg *pg)
{
    return pg->pipeline.refused_write;
}

bool pipeline_is_idle(const struct pipeline *pipeline)
{
    return false;
}

/* -- Customers, workers and the steps of a story -- */

struct customer {
    struct pool_waiter waiter;
    struct pool *pool;
    struct pg *pg; /* borrowed; what it has */
    char name;
    bool hasty;               /* gives back what it is granted at once */
    bool stubborn;            /* asks again when it is refused */
    struct customer *forgets; /* whom it makes give up when it is refused */
};

static struct loop loop;
static struct shared *shared;
static struct pg_target target;
static struct pool pools[WORKERS];
static struct customer customers[CUSTOMERS];
static struct pool *current;
static char diary[64]; /* who was served: in capitals if at once, with '!' if refused */

static const struct pool_options usual = {
    .max_lifetime = SECONDS(100),
    .max_idle = SECONDS(20),
    .health_check = SECONDS(10000),
    .connect_timeout = SECONDS(5),
};

static void note(char c)
{
    size_t used = strlen(diary);
    if (used + 1 < sizeof diary) {
        diary[used] = c;
        diary[used + 1] = '\0';
    }
}

static void ask(struct customer *customer)
{
    customer->pg = pool_acquire(customer->pool, &customer->waiter);
    if (customer->pg) {
        note((char)(customer->name - 'a' + 'A'));
    }
}

static void leave(struct customer *customer, bool dirty)
{
    struct pg *pg = customer->pg;
    customer->pg = NULL;
    if (pg) {
        pool_release(customer->pool, pg, dirty);
    } else if (customer->pool) {
        pool_forget(customer->pool, &customer->waiter);
    }
}

static void on_refused(struct customer *customer)
{
    note('!');
    if (customer->stubborn) {
        ask(customer);
    }
    if (customer->forgets) {
        leave(customer->forgets, false);
    }
}

static void on_granted(struct pool_waiter *waiter, struct pg *pg, const struct error *err)
{
    struct customer *customer = list_entry(waiter, struct customer, waiter);
    note(customer->name);
    customer->pg = pg;
    if (!pg) {
        faults += err->code == ERROR_NONE;
        on_refused(customer);
    } else if (customer->hasty) {
        leave(customer, false);
    }
}

/* The oldest session of the current worker in a state; a story that needs one which is not there is
 * a fault. */
static struct pg *find(enum pg_state state)
{
    for (size_t i = 0; i < session_count; i++) {
        if (sessions[i]->state == state && sessions[i]->owner == current) {
            return sessions[i];
        }
    }
    faults++;
    return NULL;
}

static void make_idle(struct pg *pg)
{
    if (pg) {
        pg->opened_at = pg->was_open ? pg->opened_at : loop.now;
        pg->was_open = true;
        pg->idle_since = pg->state == PG_CHECKING ? pg->idle_since : loop.now;
        pg->heard_at = loop.now;
        pg->state = PG_IDLE;
        pg->events->on_idle(pg);
    }
}

static void close_session(struct pg *pg, enum error_code code)
{
    struct error err;
    error_set(&err, code, "%s", "as the story says");
    if (pg) {
        pg->state = PG_CLOSED;
        if (code != ERROR_NONE) {
            pg->events->on_failed(pg, &err);
        }
        pg->events->on_closed(pg);
    }
}

/* It is not closed yet: this too takes an answer, or time. */
static void fall_silent(struct pg *pg)
{
    struct error err;
    error_set(&err, ERROR_UNAVAILABLE, "%s", "as the story says");
    if (pg) {
        pg->silent = true;
        pg->state = PG_CLOSING;
        pg->events->on_failed(pg, &err);
    }
}

static void lose(struct customer *customer)
{
    struct pg *pg = customer->pg;
    customer->pg = NULL;
    pool_lost(customer->pool, pg);
    close_session(pg, ERROR_UNAVAILABLE);
}

/* A worker looks up only when it has been woken. */
static void attend(void)
{
    uint64_t count;
    if (read(current->slot->wake_fd, &count, sizeof count) == sizeof count) {
        pool_attend(current);
    }
}

static void pass_time(uint64_t milliseconds)
{
    loop.now += MILLISECONDS(milliseconds);
    timers_run(&loop.timers, loop.now);
}

static void take_customer_step(char verb, struct customer *customer)
{
    switch (verb) {
    case '+':
        customer->pool = current;
        ask(customer);
        break;
    case '-':
        leave(customer, false);
        break;
    case '~':
        leave(customer, true);
        break;
    case '!':
        lose(customer);
        break;
    case '*':
        customer->hasty = true;
        break;
    case '^':
        customer->stubborn = true;
        break;
    default:
        faults++;
    }
}

/* Verbs for the oldest session, or for the worker. */
static void take_step(char verb)
{
    switch (verb) {
    case '1':
    case '2':
        current = &pools[verb - '1'];
        break;
    case 'o': /* opened */
        make_idle(find(PG_CONNECTING));
        break;
    case 'f': /* failed to open */
        close_session(find(PG_CONNECTING), ERROR_UNAVAILABLE);
        break;
    case 'c': /* cleaned */
        make_idle(find(PG_CLEANING));
        break;
    case 'k': /* checked, and found well */
        make_idle(find(PG_CHECKING));
        break;
    case 'd': /* checked, and found dead */
        close_session(find(PG_CHECKING), ERROR_UNAVAILABLE);
        break;
    case 's': /* could not be cleaned in time */
        fall_silent(find(PG_CLEANING));
        break;
    case 'x': /* did not answer the check in time */
        fall_silent(find(PG_CHECKING));
        break;
    case 'q': /* has something to say, which nobody has read yet */
        find(PG_IDLE)->pipeline.retire = true;
        break;
    case 'z': /* closed, as it was asked to */
        close_session(find(PG_CLOSING), ERROR_NONE);
        break;
    case 'w': /* worn: will not be used again */
        find(PG_LENT)->pipeline.retire = true;
        break;
    case '?':
        attend();
        break;
    default:
        faults++;
    }
}

static void count_permits(void)
{
    uint32_t sum = 0;
    for (int i = 0; i < WORKERS; i++) {
        sum += shared->workers[i].sessions;
    }
    faults += sum > shared->pool_max || sum != session_count;
}

/* Steps stand between blanks: "+a" asks, "-a" gives back or gives up, "~a" gives back dirty, "!a"
 * loses its session, "*a" and "^a" make it hasty or stubborn, "@50" lets 50 ms pass, "=" parts the
 * diary; for the others see above. */
static void play(const char *story)
{
    for (const char *step = story; *step; step += strcspn(step, " "), step += *step == ' ') {
        if (*step == '@') {
            pass_time(strtoull(step + 1, NULL, 10));
        } else if (*step == '=') {
            note('=');
        } else if (step[1] >= 'a' && step[1] < 'a' + CUSTOMERS) {
            take_customer_step(*step, &customers[step[1] - 'a']);
        } else {
            take_step(*step);
        }
        count_permits();
    }
}

/* "o1 i2 l3 g4 w5": opening, idle, lent, going, and waiting, for each worker; nothing for none. */
static const char *shape(void)
{
    static char text[128];
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < WORKERS; i++) {
        const struct pool *pool = &pools[i];
        const struct list *lists[] = {&pool->opening, &pool->idle, &pool->lent, &pool->leaving,
                                      &pool->waiters};
        for (int k = 0; k < 5; k++) {
            unsigned length = 0;
            for (const struct list *item = lists[k]->next; item != lists[k]; item = item->next) {
                length++;
            }
            if (length) {
                used += (size_t)snprintf(text + used, sizeof text - used, "%s%c%u", used ? " " : "",
                                         "oilgw"[k], length);
            }
            faults += k == 4 && length != pool->waiting;
        }
        used += (size_t)snprintf(text + used, sizeof text - used, "%s", i ? "" : " |");
    }
    return text + (text[0] == ' ');
}

static void begin(uint32_t maximum, const struct pool_options *options)
{
    struct error err;
    faults = 0;
    diary[0] = '\0';
    memset(customers, 0, sizeof customers);
    memset(&loop, 0, sizeof loop);
    timers_init(&loop.timers);
    loop.now = SECONDS(1000);
    shared = shared_create(WORKERS, maximum, &err);
    for (int i = 0; i < WORKERS; i++) {
        pool_init(&pools[i], &loop, NULL, &target, shared, &shared->workers[i], options);
    }
    for (int i = 0; i < CUSTOMERS; i++) {
        customers[i].name = (char)('a' + i);
        customers[i].waiter.granted = on_granted;
        list_init(&customers[i].waiter.link);
    }
    current = &pools[0];
}

static void finish(const char *name)
{
    for (int i = CUSTOMERS - 1; i >= 0; i--) {
        leave(&customers[i], false);
    }
    for (int i = 0; i < WORKERS; i++) {
        pool_finish(&pools[i]);
        faults += shared->workers[i].sessions;
    }
    check(faults == 0 && session_count == 0, "%s: states and permits are kept", name);
    shared_destroy(shared);
    timers_finish(&loop.timers);
}

static const struct {
    const char *name;
    uint32_t maximum;
    const char *story;
    const char *diary;
    const char *shape; /* at the end */
} rows[] = {
    {"the first one opens a session", 2, "+a o", "a", "l1 |"},
    {"an idle session is lent at once", 2, "+a o -a +b", "aB", "l1 |"},
    {"first come, first served", 1, "+a o +b +c -a -b", "abc", "l1 |"},
    {"who comes later does not overtake", 1, "+a +b o -a +c -b", "abc", "l1 |"},
    {"one attempt until the database answers", 3, "+a +b +c", "", "o1 w3 |"},
    {"then one for each who waits", 4, "+a +b +c o", "a", "o2 l1 w2 |"},
    {"never more than the maximum", 2, "+a +b +c o o", "ab", "l2 w1 |"},
    {"a freed session goes to who waits, not the new one", 3, "+a +b o -a o", "ab", "i1 l1 |"},
    {"the most recently used one is lent first", 2, "+a +b o o -a @15000 -b +c @6000", "abC",
     "l1 g1 |"},

    {"giving up the wait", 1, "+a o +b +c -b -a", "ac", "l1 |"},
    {"giving up before the session is open", 1, "+a -a o", "", "i1 |"},
    {"giving up twice", 1, "+a o +b -b -b", "a", "l1 |"},

    {"a dirty session is not lent before it is clean", 1, "+a o +b ~a = c", "a=b", "l1 |"},
    {"nor to who comes then", 1, "+a o ~a +b = c", "a=b", "l1 |"},
    {"it holds its permit meanwhile", 1, "+a o ~a +b", "a", "g1 w1 |"},
    {"a worn session is closed, and replaced", 1, "+a o +b w -a = z o", "a=b", "l1 |"},
    {"one that is worn when clean, too", 1, "+a o w ~a c z", "a", "|"},

    {"who is granted may give back at once", 1, "+a o *b +b +c -a", "abc", "l1 |"},
    {"all of them", 1, "*a *b *c +a +b +c o", "abc", "i1 |"},

    {"a worker's last session is not for one that has others", 2, "1 +a o -a 2 +b o +c 1 ? = @500",
     "ab=", "i1 | l1 w1"},
    {"but when it was not used for a second", 2, "1 +a o -a 2 +b o +c = @1100 1 z 2 ? o", "ab=c",
     "| l2"},
    {"a worker whose session leaves for long starves", 2,
     "1 +a o -a 2 +b o ~b = @400 +c 1 ? z 2 ? o", "ab=c", "| l1 g1"},

    {"the database is away: nobody waits for it", 2, "+a +b f", "a!b!", "|"},
    {"nor who comes later", 2, "+a f +b = @0", "a!=b!", "|"},
    {"one who asks again is told in the next tick", 2, "+a f ^b +b @0 @1", "a!b!b!", "w1 |"},
    {"one that gives up before it is told", 2, "+a f +b -b @0", "a!", "|"},
    {"it is tried again", 2, "+a f @60", "a!", "o1 |"},
    {"once at a time", 2, "+a f @60 @60", "a!", "o1 |"},
    {"but not too soon", 2, "+a f @30", "a!", "|"},
    {"it is back: the session is kept", 2, "+a f @60 o +b", "a!B", "l1 |"},
    {"who comes during an attempt is not kept", 2, "+a f @60 +b @0 f", "a!b!", "|"},
    {"with a session alive others wait", 2, "+a o +b f -a", "ab", "l1 |"},

    {"a lost session is replaced", 2, "+a o !a @0", "a", "o1 |"},
    {"one that is lost tells of the database", 2, "+a o !a @0 f +b @0", "ab!", "|"},
    {"who waits gets the replacement", 1, "+a o +b !a @0 o", "ab", "l1 |"},

    {"two workers share the maximum", 2, "1 +a +b o o 2 +c", "ab", "l2 | w1"},
    {"an idle worker gives to one that starves", 1, "1 +a o -a 2 +b 1 ? z 2 ? o", "ab", "| l1"},
    {"a busy one keeps it for its turn", 1, "1 +a o +c 2 +b @20 1 ? -a", "ac", "l1 | w1"},
    {"and gives it up then", 1, "1 +a o +c 2 +b @60 1 -a z 2 ? o", "ab", "w1 | l1"},
    {"the permit goes to who starves longest", 1, "1 +a o +c 2 +b @60 1 -a z +d", "a", "w2 | w1"},
    {"and comes back after that one's turn", 1, "1 +a o +c 2 +b @60 1 -a z 2 ? o +d @60 -b z 1 ? o",
     "abc", "l1 | w1"},
    {"one with idle sessions keeps one", 3, "1 +a +b +c o o o -a -b -c 2 +d 1 ? z 2 ? o 1 z ?",
     "abcd", "i1 | l1"},
    {"one that starves no more claims nothing", 1, "1 +a o +c 2 +b -b @60 1 ? -a", "ac", "l1 |"},
    {"a closing session counts until it is closed", 1, "1 +a o -a 2 +b 1 ? 2 ?", "a", "g1 | w1"},
    {"without permits the others tell of the database", 1, "1 +a f 2 +b o 1 @60 +c", "a!b",
     "w1 | l1"},

    {"a session unused for long is closed", 2, "+a o -a @19000 = @2000 z", "a=", "|"},
    {"one in use is not", 2, "+a o @19000 -a @2000", "a", "i1 |"},
    {"nor one that is lent", 2, "+a o @30000", "a", "l1 |"},
    {"one that lived long is closed when it is given back", 2, "+a o @100000 -a", "a", "g1 |"},
    {"a permit of an old one serves who waits", 1, "+a o @100000 +b -a z o", "ab", "l1 |"},
};

static void test_down(void)
{
    static const uint64_t backoffs[] = {50, 100, 200, 400, 800, 800};
    begin(2, &usual);
    play("+a f");
    for (size_t i = 0; i < sizeof backoffs / sizeof *backoffs; i++) {
        uint64_t wait = pools[0].retry.at - loop.now;
        check(wait <= MILLISECONDS(backoffs[i]) && wait >= MILLISECONDS(backoffs[i]) * 3 / 4,
              "attempt %zu comes after about %d ms", i + 2, (int)backoffs[i]);
        check(!shared->database_up, "the database is known to be away");
        pass_time(backoffs[i]);
        play("f");
    }
    check_int(shared->workers[0].counters.pool_connect_failures_total, 7, "failures are counted");
    play("@800 o");
    check(shared->database_up && pools[0].down.code == ERROR_NONE, "and known to be back");
    play("+b !b @0 f");
    check(pools[0].retry.at - loop.now <= MILLISECONDS(50), "the next time it begins anew");
    finish("back-off");
}

static void test_forget_while_failing(void)
{
    begin(2, &usual);
    customers[0].forgets = &customers[1];
    play("+a +b +c f");
    check_text(diary, "a!c!", "one who is refused makes another give up");
    check_int(pools[0].waiting, 0, "and nobody is left waiting");
    finish("giving up while others are refused");
}

static void test_minimum(void)
{
    struct pool_options options = usual;
    options.min_idle = 2;
    begin(3, &options);
    play("@0 o");
    check_text(shape(), "o1 i1 | o1", "a minimum is opened without anybody asking, by permits");
    play("o 2 o 1 @60000");
    check_text(shape(), "i2 | i1", "and kept however long it is unused");
    play("@45000");
    check_text(shape(), "g2 | g1", "but not beyond its lifetime");
    play("z z 2 z 1 @1000");
    check_text(shape(), "o2 | o1", "after which it is opened anew");
    finish("the minimum");
}

static void test_health(void)
{
    struct pool_options options = usual;
    options.health_check = SECONDS(5);
    begin(2, &options);
    play("+a +b o o -a @3000 -b @3000");
    check_text(shape(), "i1 g1 |", "a session that rests is checked");
    play("k @100");
    check_text(shape(), "i2 |", "and goes on resting");
    struct pg *used = list_entry(pools[0].idle.next, struct pg, link);
    check(used == sessions[1], "behind those used later");
    play("@3000 @1 +c");
    check_text(diary, "abC", "while one is checked another one is lent");
    play("d @0 +d f");
    check_text(diary, "abC", "with one that answers the database is not away");
    play("-d -c @6000 k @15000");
    check_int(shared->workers[0].counters.pool_idle_closes_total, 1, "a check is not a use");
    finish("checks");
}

static void test_unread(void)
{
    begin(2, &usual);
    play("+a o -a @1100 q +b");
    check_text(shape(), "o1 i1 w1 |", "a session that may have ended is not lent");
    play("o");
    check_text(diary, "ab", "another one is opened instead");
    finish("unread");
}

static void test_overload(void)
{
    begin(1, &usual);
    play("+a o");
    for (int i = 0; i < 4; i++) {
        play("@100 -a +a");
    }
    diary[0] = '\0';
    atomic_store(&shared->workers[1].idle, 1);
    customers[4].waiter.deadline = loop.now + MILLISECONDS(150);
    customers[5].waiter.deadline = loop.now + MILLISECONDS(150);
    play("+e +f @1");
    check_text(diary, "", "what another worker has idle counts");
    play("-f -e");
    atomic_store(&shared->workers[1].idle, 0);
    customers[4].waiter.deadline = 0;
    loop.now += MILLISECONDS(10);
    customers[1].waiter.deadline = loop.now + MILLISECONDS(99);
    customers[2].waiter.deadline = loop.now + MILLISECONDS(250);
    customers[3].waiter.deadline = loop.now + MILLISECONDS(199);
    play("+b +c +d @1");
    check_text(diary, "b!d!", "who cannot make it is told at once");
    play("@200 -a @1");
    check_text(diary, "b!d!c!", "and so is who cannot make it any more");
    play("+e +a");
    check_text(diary, "b!d!c!E", "who has no deadline waits");
    customers[2].waiter.deadline = loop.now + 1;
    play("+c -c @1");
    check_text(diary, "b!d!c!E", "who gives up before is not told");
    check_int(pools[0].waiting, 1, "and nobody else waits");
    finish("overload");
}

/* A session that runs something: true if it prepares its statements anew for it. */
static bool renews(const struct customer *customer)
{
    struct prepared_set *prepared = &customer->pg->pipeline.prepared;
    prepared->count = 1;
    pool_renew(customer->pool, customer->pg);
    return prepared->count == 0;
}

static void find_stale(const struct customer *customer)
{
    customer->pg->pipeline.outdated = true;
    pool_look_at(customer->pool, customer->pg);
}

static void test_stale(void)
{
    begin(3, &usual);
    play("+a +b +d o o o");
    struct customer *a = &customers[0], *b = &customers[1], *d = &customers[3];
    check(!renews(a) && !renews(b) && !renews(d), "while nothing is stale nothing is renewed");
    find_stale(a);
    check(!renews(a), "who has found it has renewed it already");
    find_stale(b);
    check(!renews(a) && !renews(b), "one that meets the same change tells nobody anew");
    check(renews(d) && !renews(d), "those who have not met it renew once");
    find_stale(d);
    check(renews(a) && renews(b) && !renews(d), "the next change is told again");
    play("-a -b -d");
    finish("stale statements");
}

static void find_read_only(const struct customer *customer)
{
    customer->pg->pipeline.refused_write = true;
    pool_look_at(customer->pool, customer->pg);
}

static void test_read_only(void)
{
    begin(8, &usual);
    play("+a o @1");
    find_read_only(&customers[0]);
    check_int(shared->forsaken, 0, "who does not ask for writes does not mind");
    target.writes = true;
    play("+b o -b 2 +c +d o o -d 1");
    find_read_only(&customers[0]);
    play("? 2 ? 1");
    check_text(shape(), "l1 g1 | l1 g1", "what is idle is closed, in all workers");
    play("@0");
    check_text(shape(), "o1 l1 g1 | o1 l1 g1", "and each looks for a server");
    find_read_only(&customers[2]);
    check_int(shared->forsaken, 1, "those that were open by then tell nothing new");
    play("f 2 f 1");
    check(shared->database_up, "while one is lent nothing is known");
    play("-a 2 -c 1 @50 +e f");
    check_text(shape(), "g2 | o1 g2", "what was lent is closed when it is back");
    check(!shared->database_up, "without any the database is away");
    check_text(diary, "abcde!", "and who wants one is told at once");
    play("2 o 1");
    check(shared->database_up, "one that is opened takes writes");
    finish("a server that turns read-only");
    target.writes = false;
}

static void test_silence(void)
{
    begin(4, &usual);
    play("+a +b +c o o o -c ~a s z");
    check_text(shape(), "l1 g1 |", "when one falls silent those that rest are checked");
    play("k @3000");
    check_text(shape(), "i1 l1 |", "and go on resting if they answer");
    check(shared->database_up, "then the database is there");
    play("~b s x z z @0");
    check_text(shape(), "o1 |", "when all are silent another one is opened");
    check(shared->database_up, "while it is, nothing is known");
    play("@5000");
    check(shared->database_up, "nor is it by a worker that stood still itself");
    play("@1000 @1000 +d @0");
    check(!shared->database_up, "after a while the database is away");
    check_text(diary, "abcd!", "and nobody waits for it");
    play("o");
    check(shared->database_up, "until there is an answer");
    finish("silence");
}

/* As a lane that lives on when the others have fallen silent. */
static void test_silence_until_an_answer(void)
{
    begin(3, &usual);
    play("+a +b o o ~a s z @1000 @1000");
    pool_look_at(&pools[0], customers[1].pg);
    play("@1000 !b @1000 @1000 @1000");
    check_text(shape(), "o1 |", "one that answered after a silence is lost: another one is opened");
    check(shared->database_up, "the silence before its answer tells nothing of the database");
    play("o +c +d o ~c s z @1000 !d @1000");
    check(!shared->database_up, "one since its last answer does");
    play("o");
    finish("silence until an answer");
}

static void test_silence_for_a_busy_worker(void)
{
    begin(1, &usual);
    play("+a o ~a s z +b @0 @1300 @1300 @1300 @1300");
    check(!shared->database_up, "one that is always late finds the database away, too");
    check_text(diary, "ab!", "and nobody waits for it");
    play("o");
    finish("silence for a busy worker");
}

static void test_silence_in_one_worker(void)
{
    begin(2, &usual);
    play("1 +a o 2 +b o -b 1 ~a s 2 ?");
    check_text(shape(), "g1 | g1", "when one falls silent those of other workers are checked too");
    play("k @1000 @1000 @1000");
    check(shared->database_up, "while another worker has one that answers the server is there");
    play("1 +c 2 ? z 1 ? o");
    check_text(diary, "abc", "and who waits in the worker that has none gets its permit");
    finish("silence in one worker");
}

static void test_silence_in_all_workers(void)
{
    begin(3, &usual);
    play("1 +a o 2 +b +d o o -b 1 ~a s 2 ? x @1000 @1000");
    check(shared->database_up, "one that is lent may still answer");
    play("~d @1000 @1000 1 +c @0");
    check(!shared->database_up, "one that is cleaned does not: the server is away");
    check_text(diary, "abdc!", "and nobody waits for it");
    play("2 c @1000");
    check(shared->database_up, "until another worker's answers");
    finish("silence in all workers");
}

static void test_lifetime(void)
{
    begin(1, &usual);
    play("+a o");
    uint64_t lifetime = customers[0].pg->expires_at - loop.now;
    check(lifetime <= SECONDS(100) && lifetime > SECONDS(90), "a lifetime is cut by a tenth");
    play("-a @100000");
    check_text(shape(), "g1 |", "when it is over, the session is closed");
    play("z +a o");
    check(customers[0].pg->expires_at - loop.now != lifetime, "no two lifetimes are the same");
    check_int(shared->workers[0].counters.pool_lifetime_closes_total, 1, "it is counted");
    finish("lifetimes");
}

int main(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        begin(rows[i].maximum, &usual);
        play(rows[i].story);
        check_text(diary, rows[i].diary, "%s", rows[i].name);
        check_text(shape(), rows[i].shape, "%s: where sessions are", rows[i].name);
        finish(rows[i].name);
    }
    test_down();
    test_forget_while_failing();
    test_minimum();
    test_health();
    test_unread();
    test_overload();
    test_stale();
    test_read_only();
    test_silence();
    test_silence_until_an_answer();
    test_silence_for_a_busy_worker();
    test_silence_in_one_worker();
    test_silence_in_all_workers();
    test_lifetime();
    return test_end();
}
