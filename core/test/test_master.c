/* The master with a worker of our own: starting, replacing, reloading and ending. Each case runs a
 * master in a child process and reads its log, which tells what to wait for. */
#include "master.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "deadline.h"
#include "listener.h"
#include "log.h"
#include "shared.h"
#include "source.h"
#include "test.h"
#include "worker.h"

enum { WAIT_SECONDS = 20 };

/* ---- The worker under the master's care. What it does is written in its scripts. ---- */

static volatile sig_atomic_t terminated;

static void on_term(int number)
{
    terminated = 1;
}

/* True if a script of the snapshot holds `word`. */
static bool says(const struct source *source, const char *word)
{
    struct source_file file;
    for (uint32_t i = 0; source_script(source, i, &file) == 0; i++) {
        if (strstr(file.data, word)) {
            return true;
        }
    }
    return false;
}

/* The one that serves this worker; changed by what a client may see. */
static const struct source *serving;

static void load_candidate(struct shared *shared, struct shared_worker *slot, uint32_t index)
{
    uint64_t generation = shared->generation;
    const struct source *candidate = &shared->sources[shared->candidate];
    if (says(candidate, "crash")) {
        abort();
    }
    bool refused = says(candidate, "broken") || (index == 0 && says(candidate, "disputed"));
    if (!refused) {
        serving = candidate;
    }
    slot->load = refused ? SHARED_REFUSED : SHARED_LOADED;
    slot->generation = generation;
    log_event(LOG_INFO, "decided", "worker %u generation %d %s", index + 1, (int)generation,
              refused ? "refused" : "loaded");
    log_flush();
    shared_wake_master(shared);
}

/* A client says a word and hears the worker's pid; "die" and "hang" do as they say. */
static void serve_client(int listen_fd)
{
    char text[32] = "";
    int client = accept(listen_fd, NULL, NULL);
    if (client < 0 || read(client, text, sizeof text - 1) < 0) {
        return;
    }
    if (strcmp(text, "die") == 0) {
        kill(getpid(), SIGKILL);
    }
    dprintf(client, "%d", getpid());
    close(client);
    while (strcmp(text, "hang") == 0) {
        pause();
    }
}

/* The master starts workers with SIGTERM blocked. */
static void look_at_term(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    signal(SIGTERM, on_term);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static int start_worker(struct shared *shared, struct shared_worker *slot)
{
    serving = &shared->sources[shared->good];
    if (says(serving, "misconfigured")) {
        return WORKER_EXIT_CONFIG;
    }
    if (says(serving, "unhappy")) {
        return 3;
    }
    look_at_term();
    slot->ready = true;
    shared_wake_master(shared);
    return 0;
}

int worker_run(const struct config *config, struct shared *shared, uint32_t index, int listen_fd,
               int admin_fd)
{
    struct shared_worker *slot = &shared->workers[index];
    int code = start_worker(shared, slot);
    listener_begin(listen_fd);
    while (code == 0 && (!terminated || says(serving, "stubborn"))) {
        struct pollfd fds[] = {{.fd = listen_fd, .events = POLLIN},
                               {.fd = slot->wake_fd, .events = POLLIN}};
        uint64_t count;
        poll(fds, 2, 50);
        slot->heartbeat = clock_now();
        if (read(slot->wake_fd, &count, sizeof count) > 0 &&
            slot->generation != shared->generation) {
            load_candidate(shared, slot, index);
        }
        serve_client(listen_fd);
    }
    return code;
}

/* ---- The case: a folder, a master, and its log. ---- */

struct run {
    char folder[64];
    char scripts[96], sql[96];
    struct config config;
    pid_t pid;
    int log_fd;
    int port;
    char log[65536]; /* all that was read of it */
    size_t length;
    size_t seen; /* what await() has gone past */
};

static void write_file(const struct run *run, const char *name, const char *text)
{
    char path[160], temporary[176];
    snprintf(path, sizeof path, "%s/%s", run->folder, name);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0 || close(fd) != 0 ||
        rename(temporary, path) != 0) {
        printf("# cannot write %s: %s\n", path, strerror(errno));
    }
}

/* Runs a command of the shell in the case's folder. */
static void shell(const struct run *run, const char *command)
{
    char line[512];
    snprintf(line, sizeof line, "cd '%s' && %s", run->folder, command);
    check_int(system(line), 0, "%s", command);
}

static void prepare(struct run *run, const char *script)
{
    memset(run, 0, sizeof *run);
    strcpy(run->folder, "/tmp/moonpool-master-XXXXXX");
    check(mkdtemp(run->folder) != NULL, "a folder for the case");
    snprintf(run->scripts, sizeof run->scripts, "%s/scripts", run->folder);
    snprintf(run->sql, sizeof run->sql, "%s/sql", run->folder);
    mkdir(run->scripts, 0755);
    mkdir(run->sql, 0755);
    write_file(run, "scripts/a.lua", script);
    run->config = (struct config){.database = "postgres://me:secret@nowhere/db",
                                  .listen = "127.0.0.1:0",
                                  .admin_listen = "127.0.0.1:0",
                                  .scripts = run->scripts,
                                  .sql = run->sql,
                                  .workers = 2,
                                  .pool_max = 4,
                                  .deadline = SECONDS(1),
                                  .shutdown = SECONDS(5),
                                  .watch = true};
}

static void start(struct run *run)
{
    int ends[2];
    fflush(stdout);
    if (pipe(ends) != 0 || (run->pid = fork()) < 0) {
        return;
    }
    if (run->pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        alarm(200); /* it ends with the test, even if that hangs */
        log_configure(LOG_INFO, LOG_TEXT);
        int code = master_run(&run->config);
        log_flush();
        _exit(code);
    }
    close(ends[1]);
    run->log_fd = ends[0];
}

/* Reads on until the log holds `text` behind what was seen; NULL if it does not come. */
static const char *await(struct run *run, const char *text)
{
    uint64_t deadline = clock_now() + SECONDS(WAIT_SECONDS);
    for (;;) {
        const char *found = strstr(run->log + run->seen, text);
        if (found) {
            run->seen = (size_t)(found - run->log) + strlen(text);
            return found;
        }
        struct pollfd fd = {.fd = run->log_fd, .events = POLLIN};
        int left = (int)(deadline_left(deadline, clock_now()) / 1000);
        if (poll(&fd, 1, left) <= 0) {
            return NULL;
        }
        ssize_t n = read(run->log_fd, run->log + run->length, sizeof run->log - 1 - run->length);
        if (n <= 0) {
            return NULL;
        }
        run->length += (size_t)n;
    }
}

static bool expect(struct run *run, const char *text)
{
    bool found = check(await(run, text) != NULL, "the log says: %s", text);
    if (!found) {
        printf("# the log was:\n");
        for (char *line = strtok(run->log + run->seen, "\n"); line; line = strtok(NULL, "\n")) {
            printf("# %s\n", line);
        }
    }
    return found;
}

static void start_serving(struct run *run, const char *script)
{
    prepare(run, script);
    start(run);
    const char *line = await(run, "master: serving url=http://127.0.0.1:");
    check(line != NULL, "it serves");
    size_t port_at = run->seen;
    expect(run, "pid=");
    run->port = atoi(run->log + port_at);
}

/* Waits for the end; the rest of the log is read too. */
static int ended(struct run *run)
{
    int status = -1;
    await(run, "\n\n that never comes");
    waitpid(run->pid, &status, 0);
    close(run->log_fd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void tidy(struct run *run)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", run->folder);
    check_int(system(command), 0, "tidies up");
}

static void stop(struct run *run, int expected)
{
    kill(run->pid, SIGTERM);
    check_int(ended(run), expected, "TERM ends it with %d", expected);
    tidy(run);
}

/* Says `word` to some worker; its pid, 0 if the connection broke, -1 if there was none. */
static int say(const struct run *run, const char *word)
{
    char text[32] = "";
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)run->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int pid = -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
        ssize_t n = write(fd, word, strlen(word));
        pid = n > 0 && read(fd, text, sizeof text - 1) > 0 ? atoi(text) : 0;
    }
    close(fd);
    return pid;
}

/* ---- The cases. ---- */

static void test_serves_and_stops(void)
{
    struct run run;
    start_serving(&run, "fine");
    check(strstr(run.log, "admin=http://127.0.0.1:") != NULL, "and names the admin address");
    check(strstr(run.log, "workers=2") != NULL, "and the workers");
    check(strstr(run.log, "me:***@nowhere") && !strstr(run.log, "secret"), "but no password");
    int first = say(&run, "hello"), other = first;
    /* The second lets clients in when it is ready, a moment after the first. */
    uint64_t patience = clock_now() + SECONDS(10);
    while (other == first && clock_now() < patience) {
        other = say(&run, "hello");
    }
    check(first > 0 && other > 0 && other != first, "both workers answer at one address");
    stop(&run, 0);
    check(strstr(run.log, "stopped exit_code=0") != NULL, "the log says that it has stopped");
    check(!strstr(run.log, "died"), "no worker died");
    check_int(say(&run, "hello"), -1, "nobody listens any more");
}

static void test_cannot_start(void)
{
    struct run run, second;
    prepare(&run, "misconfigured");
    start(&run);
    check_int(ended(&run), 1, "a worker that exits with 78 ends the master with 1");
    check(!strstr(run.log, "serving"), "it never served");
    tidy(&run);

    prepare(&run, "fine");
    run.config.scripts = "/nonexistent/scripts";
    start(&run);
    expect(&run, "moonpool: cannot read /nonexistent/scripts");
    check_int(ended(&run), 1, "a folder that is not there ends it with 1");
    tidy(&run);

    start_serving(&run, "fine");
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", run.port);
    prepare(&second, "fine");
    second.config.listen = address;
    start(&second);
    expect(&second, "moonpool: --listen 127.0.0.1:");
    expect(&second, "Address already in use (is another server running there?)");
    check_int(ended(&second), 1, "a port that is taken ends it with 1");
    second.config.listen = "127.0.0.1:0";
    second.config.admin_listen = address;
    second.seen = second.length = 0;
    memset(second.log, 0, sizeof second.log);
    start(&second);
    expect(&second, "moonpool: --admin-listen 127.0.0.1:");
    check_int(ended(&second), 1, "so does a taken admin port");
    tidy(&second);
    stop(&run, 0);
}

static void test_replaces_the_dead(void)
{
    struct run run;
    start_serving(&run, "fine");
    check_int(say(&run, "die"), 0, "a worker dies under a request");
    expect(&run, "worker died worker=");
    expect(&run, "signal=KILL");
    int pids[64];
    bool good = true;
    for (int i = 0; i < 64; i++) {
        pids[i] = say(&run, "hello");
        good = good && pids[i] > 0;
    }
    check(good, "everybody else is answered, by the new one too");
    check_int(say(&run, "die"), 0, "again");
    expect(&run, "signal=KILL");
    stop(&run, 0);
}

static void test_kills_the_hanging(void)
{
    struct run run;
    start_serving(&run, "fine");
    int pid = say(&run, "hang");
    check(pid > 0, "a worker hangs");
    expect(&run, "worker hangs worker=");
    expect(&run, "signal=KILL");
    bool good = true;
    for (int i = 0; i < 16; i++) {
        int answer = say(&run, "hello");
        good = good && answer > 0 && answer != pid;
    }
    check(good, "another has taken its place");
    stop(&run, 0);
}

static void test_backs_off(void)
{
    struct run run;
    prepare(&run, "unhappy");
    uint64_t begin = clock_now();
    start(&run);
    for (int i = 0; i < 5; i++) {
        expect(&run, "exit_code=3");
    }
    uint64_t lasted = clock_now() - begin;
    check(lasted > MILLISECONDS(690), "a crash loop slows down: 0, 100, 200, 400 ms");
    write_file(&run, "scripts/a.lua", "fine");
    stop(&run, 0);
}

static void test_reloads(void)
{
    struct run run;
    start_serving(&run, "fine");
    write_file(&run, "scripts/a.lua", "better");
    expect(&run, "reloaded generation=2 scripts=1 statement_files=0 duration_ms=");
    write_file(&run, "sql/new.sql", "-- name: x :one");
    expect(&run, "reloaded generation=3 scripts=1 statement_files=1");
    shell(&run, "mkdir -p scripts/lib/deep");
    write_file(&run, "scripts/lib/deep/b.lua", "deep");
    expect(&run, "reloaded generation=4 scripts=2");
    write_file(&run, "scripts/lib/deep/b.lua", "deeper");
    expect(&run, "reloaded generation=5 scripts=2");
    shell(&run, "rm -r scripts/lib");
    expect(&run, "reloaded generation=6 scripts=1");
    kill(run.pid, SIGHUP);
    expect(&run, "reloaded generation=7");
    stop(&run, 0);
}

static void test_folder_returns(void)
{
    struct run run;
    start_serving(&run, "fine");
    shell(&run, "mv scripts away");
    expect(&run, "reload refused");
    shell(&run, "mv away scripts");
    expect(&run, "reloaded generation=2");
    write_file(&run, "scripts/a.lua", "changed");
    expect(&run, "reloaded generation=3");
    shell(&run, "mv scripts old && mkdir new && echo newer > new/a.lua && mv new scripts");
    expect(&run, "reloaded generation=4");
    write_file(&run, "scripts/a.lua", "changed again");
    expect(&run, "reloaded generation=5");
    stop(&run, 0);
}

static void test_refuses(void)
{
    struct run run;
    start_serving(&run, "fine");
    write_file(&run, "scripts/a.lua", "broken");
    expect(&run, "reload refused generation=2");
    check_int(say(&run, "die"), 0, "a worker dies meanwhile");
    expect(&run, "worker died");
    check(say(&run, "hello") > 0, "the new one starts on the good version");
    write_file(&run, "scripts/a.lua", "mended");
    expect(&run, "reloaded generation=3");
    write_file(&run, "scripts/a.lua", "disputed");
    expect(&run, "reload refused generation=4");
    expect(&run, "reloaded generation=5");
    write_file(&run, "scripts/a.lua", "crash");
    expect(&run, "signal=ABRT");
    expect(&run, "signal=ABRT");
    expect(&run, "reload refused generation=6");
    check(say(&run, "hello") > 0, "workers killed by a new version come back on the old one");
    stop(&run, 0);
}

static void test_unwatched(void)
{
    struct run run;
    prepare(&run, "fine");
    run.config.watch = false;
    start(&run);
    expect(&run, "serving");
    write_file(&run, "scripts/a.lua", "changed");
    kill(run.pid, SIGHUP);
    expect(&run, "reloaded generation=2");
    check(!strstr(run.log + run.seen, "reloaded"), "only the signal reloads");
    stop(&run, 0);
}

static void test_stubborn(void)
{
    struct run run;
    prepare(&run, "stubborn");
    run.config.shutdown = SECONDS(40);
    start(&run);
    expect(&run, "serving");
    kill(run.pid, SIGINT);
    expect(&run, "stopping message=SIGINT");
    uint64_t begin = clock_now();
    kill(run.pid, SIGTERM);
    check_int(ended(&run), 1, "a second signal kills, and tells by 1");
    check(clock_now() - begin < run.config.shutdown, "before they would be killed anyway");
    tidy(&run);

    prepare(&run, "stubborn");
    run.config.shutdown = MILLISECONDS(10);
    start(&run);
    expect(&run, "serving");
    kill(run.pid, SIGTERM);
    expect(&run, "killing workers");
    check_int(ended(&run), 1, "who does not drain in time is killed");
    tidy(&run);
}

static void test_orphans(void)
{
    struct run run;
    start_serving(&run, "fine");
    kill(run.pid, SIGKILL);
    ended(&run); /* The pipe ends when the last worker goes, a moment before its socket does. */
    uint64_t deadline = clock_now() + SECONDS(WAIT_SECONDS);
    while (say(&run, "hello") != -1 && clock_now() < deadline) {
    }
    check_int(say(&run, "hello"), -1, "workers follow their master");
    tidy(&run);
}

int main(void)
{
    test_serves_and_stops();
    test_cannot_start();
    test_replaces_the_dead();
    test_kills_the_hanging();
    test_backs_off();
    test_reloads();
    test_folder_returns();
    test_refuses();
    test_unwatched();
    test_stubborn();
    test_orphans();
    return test_end();
}
