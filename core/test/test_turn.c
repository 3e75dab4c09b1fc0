/* Turns: who comes when, whoever leaves the line on the way. */
#include "turn.h"

#include "test.h"

enum { PEOPLE = 5 };

struct person {
    struct turn turn;
    char name;
    struct person *also_ends; /* on being granted, ends this one's turn or wait */
};

static struct loop loop;
static struct turns turns;
static struct person people[PEOPLE];
static char granted[32]; /* names, in order; in capitals if at once */

static void note(char name)
{
    size_t used = strlen(granted);
    if (used + 1 < sizeof granted) {
        granted[used] = name;
        granted[used + 1] = '\0';
    }
}

static void on_granted(struct turn *turn, const struct error *err)
{
    struct person *person = list_entry(turn, struct person, turn);
    note(person->name);
    if (err) {
        note('!');
    }
    if (person->also_ends) {
        turn_end(&turns, &person->also_ends->turn);
    }
}

static void take(int i, const char *key)
{
    if (turn_take(&turns, &people[i].turn, key)) {
        note((char)('A' + i));
    }
}

/* One step per character: "a" takes, "-a" ends. A digit sets the key for those that follow. */
static void play(const char *steps)
{
    char key[] = "key-0";
    bool end = false;
    for (; *steps; steps++) {
        if (*steps == '-') {
            end = true;
        } else if (*steps >= '0' && *steps <= '9') {
            key[4] = *steps;
        } else if (end) {
            turn_end(&turns, &people[*steps - 'a'].turn);
            end = false;
        } else {
            take(*steps - 'a', key);
        }
    }
}

static void begin(void)
{
    granted[0] = '\0';
    memset(&loop, 0, sizeof loop);
    timers_init(&loop.timers);
    loop.now = SECONDS(1000);
    turns_init(&turns, &loop);
    for (int i = 0; i < PEOPLE; i++) {
        people[i] = (struct person){.name = (char)('a' + i), .turn.granted = on_granted};
        list_init(&people[i].turn.link);
    }
}

static void finish(const char *name)
{
    for (int i = PEOPLE - 1; i >= 0; i--) {
        people[i].also_ends = NULL;
        turn_end(&turns, &people[i].turn);
    }
    check(list_is_empty(&turns.queues) && list_is_empty(&turns.refused), "%s: nothing is left",
          name);
    turns_finish(&turns);
    timers_finish(&loop.timers);
}

static const struct {
    const char *name;
    const char *steps;
    const char *granted;
} rows[] = {
    {"alone", "a-aa-a", "AA"},
    {"first come, first served", "abc-a-b-c", "Abc"},
    {"another key is another line", "1ab2c-c3d", "ACD"},
    {"each line moves by itself", "1ab2cd-c-a", "ACdb"},
    {"who gives up is passed over", "abc-b-a", "Ac"},
    {"giving up wakes nobody", "abc-c-b", "A"},
    {"ending twice is ending once", "abc-a-a", "Ab"},
    {"ending what never began", "-ab-a", "B"},
    {"a line that emptied begins anew", "ab-a-bcd", "AbC"},
    {"taken again goes to the end", "abc-aa-b-c", "Abca"},
};

static void test_within_granted(void)
{
    begin();
    play("abc");
    people[1].also_ends = &people[1];
    play("-a");
    check_text(granted, "Abc", "one that ends its turn at once lets the next one in");
    finish("ended at once");
    begin();
    play("abc");
    people[1].also_ends = &people[2];
    play("-a-b");
    check_text(granted, "Ab", "one that makes the next give up");
    finish("made to give up");
}

static void pass_time(uint64_t milliseconds)
{
    loop.now += MILLISECONDS(milliseconds);
    timers_run(&loop.timers, loop.now);
}

/* Turns of 100 ms each, so that the queue knows its pace. */
static void take_slow_turns(void)
{
    play("ab");
    for (int i = 0; i < 4; i++) {
        pass_time(100);
        play("-aa");
        pass_time(100);
        play("-bb");
    }
    granted[0] = '\0';
}

static void test_refused(void)
{
    begin();
    take_slow_turns();
    people[2].turn.deadline = loop.now + MILLISECONDS(1000);
    people[3].turn.deadline = loop.now + MILLISECONDS(150);
    play("cd");
    check_text(granted, "", "who cannot make it is not told before the loop turns");
    pass_time(1);
    check_text(granted, "d!", "but then, while others wait");
    people[4].turn.deadline = loop.now + MILLISECONDS(150);
    play("e-e");
    pass_time(1);
    check_text(granted, "d!", "who gives up before is not told");
    finish("refused at once");

    begin();
    take_slow_turns();
    people[2].turn.deadline = loop.now + MILLISECONDS(400);
    play("cd");
    pass_time(350);
    play("-a-b");
    pass_time(1);
    check_text(granted, "bdc!", "who cannot make it any more gives way to the next");
    finish("refused late");
}

int main(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        begin();
        play(rows[i].steps);
        check_text(granted, rows[i].granted, "%s", rows[i].name);
        finish(rows[i].name);
    }
    test_within_granted();
    test_refused();
    return test_end();
}
