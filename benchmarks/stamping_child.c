/* A child that writes down when things happen to it, on the monotonic clock, and does one thing as told:
 *
 *   stamping_child STAMPS crash          ends with 1 as soon as it gets SIGUSR1
 *   stamping_child STAMPS flood BYTES    writes that many bytes of log lines to stdout, then ends
 *
 * A stamp is a line "EVENT NANOSECONDS PID" of the file STAMPS. Any arguments may follow. SIGTERM ends it with 0.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int stamps = -1;

static void stamp(const char *event) {
    struct timespec now;
    char line[96];
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "%s %lld %d\n", event,
                          (long long)now.tv_sec * 1000000000LL + now.tv_nsec, (int)getpid());
    if (write(stamps, line, (size_t)length) < 0) _exit(9);
}

static void on_signal(int number) {
    stamp(number == SIGUSR1 ? "exit" : "term");
    _exit(number == SIGUSR1 ? 1 : 0);
}

static int flood(long long bytes) {
    static char block[64 * 1024];
    for (size_t at = 0; at < sizeof block; at++) block[at] = at % 128 == 127 ? '\n' : 'a' + at % 26;
    while (bytes > 0) {
        size_t length = bytes < (long long)sizeof block ? (size_t)bytes : sizeof block;
        ssize_t written = write(1, block, length);
        if (written < 0) return 8;
        bytes -= written;
    }
    stamp("flooded");
    return 0;
}

int main(int argc, char **argv) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    /* As a node would, it tells visor that it has no history, and nothing else. */
    if (argc > 1 && strcmp(argv[1], "network-history") == 0) {
        puts("{\"error\":\"no history segments found\"}");
        return 1;
    }
    if (argc < 3 || (stamps = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0) return 9;
    signal(SIGUSR1, on_signal);
    signal(SIGTERM, on_signal);
    char line[96];
    int length = snprintf(line, sizeof line, "exec %lld %d\n",
                          (long long)now.tv_sec * 1000000000LL + now.tv_nsec, (int)getpid());
    if (write(stamps, line, (size_t)length) < 0) return 9;
    if (strcmp(argv[2], "flood") == 0) return flood(argc > 3 ? atoll(argv[3]) : 0);
    for (;;) pause();
}
