/* A node that does nothing but answer its admin RPC and write down when things happen to it.
 *
 * Its version is the name of the folder it lies in ("genesis" is v1.0.0); it is upgraded from v1.0.N to v1.0.N+1 at height
 * 100 * (N + 1). SIGUSR1: the network accepts that release. SIGUSR2: the node is ready. SIGTERM: a ready core ends by its own
 * SIGKILL, as real ones do; everything else ends with 0. Each stamp is a line "ROLE VERSION EVENT NANOSECONDS PID" of the file
 * "stamps" beside the visor home.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS 16
#define REQUEST 4096

static int stamps = -1, version = 0;
static int accepted = 0, ready = 0, asked = 0, is_core = 0;
static const char *role = "core", *socket_path = NULL;

static void stamp(const char *event) {
    struct timespec now;
    char line[160];
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "%s v1.0.%d %s %lld %d\n", role, version, event,
                          (long long)now.tv_sec * 1000000000LL + now.tv_nsec, (int)getpid());
    if (write(stamps, line, (size_t)length) < 0) _exit(9);
}

/* Signals are let in only while the node waits, so handlers may do anything. */
static void on_signal(int number) {
    if (number == SIGUSR1) { accepted = 1; stamp("accepted"); return; }
    if (number == SIGUSR2) { ready = 1; stamp("ready"); return; }
    stamp("term");
    if (socket_path) unlink(socket_path);
    stamp("exit");
    if (is_core && ready) { kill(getpid(), SIGKILL); pause(); }
    _exit(0);
}

static void locate(void) {
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 16);
    if (length < 0) _exit(8);
    path[length] = 0;
    char *folder = dirname(path);
    const char *name = strrchr(folder, '/') + 1;
    if (strcmp(name, "genesis") != 0 && sscanf(name, "v1.0.%d", &version) != 1) _exit(7);
    char *outside = dirname(dirname(folder));
    char file[PATH_MAX + 16];
    snprintf(file, sizeof file, "%s/stamps", outside);
    stamps = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (stamps < 0) _exit(6);
}

static int answer(int client, const char *request) {
    char body[512], reply[1024], info[128] = "{\"FuryReleaseTag\":\"\",\"UpgradeBlockHeight\":0}";
    const char *id = strstr(request, "\"id\":");
    if (!id) return -1;
    id += 5;
    int digits = (int)strspn(id, "0123456789");
    if (accepted)
        snprintf(info, sizeof info, "{\"FuryReleaseTag\":\"v1.0.%d\",\"UpgradeBlockHeight\":%d}", version + 1,
                 100 * (version + 1));
    int length = snprintf(body, sizeof body,
                          "{\"result\":{\"AcceptedReleaseInfo\":%s,\"ReadyToUpgrade\":%s},\"error\":null,\"id\":%.*s}\n", info,
                          ready ? "true" : "false", digits, id);
    int total = snprintf(reply, sizeof reply,
                         "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
                         "X-Content-Type-Options: nosniff\r\nContent-Length: %d\r\n\r\n%s", length, body);
    if (!asked) { asked = 1; stamp("asked"); }
    return write(client, reply, (size_t)total) == total ? 0 : -1;
}

static int serve(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    static char requests[CLIENTS][REQUEST];
    static size_t sizes[CLIENTS];
    struct pollfd fds[CLIENTS + 1];
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    unlink(socket_path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 8) < 0) return 5;
    for (int i = 0; i < CLIENTS; i++) fds[i].fd = -1, fds[i].events = POLLIN;
    fds[CLIENTS] = (struct pollfd){.fd = listener, .events = POLLIN};
    sigset_t none;
    sigemptyset(&none);
    for (;;) {
        if (ppoll(fds, CLIENTS + 1, NULL, &none) < 0) {
            if (errno == EINTR) continue;
            return 4;
        }
        for (int i = 0; i < CLIENTS; i++) {
            if (fds[i].fd < 0 || !fds[i].revents) continue;
            ssize_t got = read(fds[i].fd, requests[i] + sizes[i], REQUEST - 1 - sizes[i]);
            if (got > 0) {
                sizes[i] += (size_t)got;
                requests[i][sizes[i]] = 0;
                if (!strstr(requests[i], "}\n")) continue;
                sizes[i] = 0;
                if (answer(fds[i].fd, requests[i]) == 0) continue;
            }
            close(fds[i].fd);
            fds[i].fd = -1;
            sizes[i] = 0;
        }
        if (fds[CLIENTS].revents) {
            int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC), place = 0;
            while (place < CLIENTS && fds[place].fd >= 0) place++;
            if (place == CLIENTS) { close(client); continue; }
            fds[place].fd = client;
        }
    }
}

int main(int argc, char **argv) {
    locate();
    int first = 1;
    if (argc > first && strcmp(argv[first], "datanode") == 0) { role = "data_node"; first++; }
    if (argc > first && strcmp(argv[first], "version") == 0) {
        stamp("version");
        printf("{\"version\":\"v1.0.%d\",\"hash\":\"\"}\n", version);
        return 0;
    }
    if (argc > first && strcmp(argv[first], "network-history") == 0) {
        printf("{\"error\":\"no history segments found\"}\n");
        return 1;
    }
    stamp("exec");
    sigset_t blocked;
    sigemptyset(&blocked);
    struct sigaction action = {.sa_handler = on_signal};
    int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    for (int i = 0; i < 4; i++) { sigaddset(&blocked, signals[i]); sigaction(signals[i], &action, NULL); }
    action.sa_mask = blocked;
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    for (int i = first; i + 1 < argc; i++)
        if (strcmp(argv[i], "--admin-socket") == 0) socket_path = argv[i + 1];
    if (strcmp(role, "core") == 0) {
        is_core = 1;
        return serve();
    }
    sigset_t none;
    sigemptyset(&none);
    for (;;) sigsuspend(&none);
}
