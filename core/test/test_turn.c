/* Turns: who comes when, whoever leaves the line on the way. */
#include "turn.h"

#include "test.h"

enum { PEOPLE = 5 };

struct person {
    struct turn turn;
    char name;
    struct person *also_ends; /* on being granted, ends this one's turn or wait */
};

static struct turns turns;
static struct person people[PEOPLE];
static char granted[32]; /* names, in order; in capitals if at once */

static void note(char name)
{
    strncat(granted, &name, 1);
}

static void on_granted(struct turn *turn)
{
    struct person *person = list_entry(turn, struct person, turn);
    note(person->name);
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
    turns_init(&turns);
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
    check(list_is_empty(&turns.queues), "%s: nothing is left", name);
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

int main(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        begin();
        play(rows[i].steps);
        check_text(granted, rows[i].granted, "%s", rows[i].name);
        finish(rows[i].name);
    }
    test_within_granted();
    return test_end();
}
