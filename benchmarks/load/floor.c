/* The floor: a client that only reads and stamps. N streams over kept connections, one epoll, kernel receive stamps, no HTTP, no JSON.
 *
 *     cc -O2 -o floor floor.c && ./floor PORT STREAMS SECONDS REQUEST OUT
 *
 * REQUEST is a file with the head and body of a request, whose X-Request-Id is 12 zeros that are counted up. An answer ends with a read that ends with
 * the last HTTP chunk, "0\r\n\r\n". OUT gets one JSON line an answer: {"id", "sent_ns", "reads": [ns...]}, CLOCK_MONOTONIC.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef long long i64;
enum { READS = 4096 };
typedef struct {
    int fd, count;
    i64 id, sent_ns, reads[READS];
} Stream;

static i64 offset;
static char request[1 << 16];
static size_t request_size, id_at;
static FILE *out;

static i64 clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void send_next(Stream *s) {
    static i64 number;
    char id[24];
    snprintf(id, sizeof id, "%012lld", s->id = number++);
    memcpy(request + id_at, id, 12);
    s->count = 0;
    s->sent_ns = clock_ns(CLOCK_MONOTONIC);
    if (send(s->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size) { perror("send"); exit(1); }
}

/* Returns 1 when the answer has ended. */
static int read_one(Stream *s) {
    static char piece[1 << 16];
    char control[CMSG_SPACE(sizeof(struct timespec))] __attribute__((aligned(8)));
    struct iovec where = {piece, sizeof piece};
    struct msghdr message = {.msg_iov = &where, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(s->fd, &message, 0);
    if (size <= 0) {
        if (size < 0 && errno == EAGAIN) return 0;
        fprintf(stderr, "the server closed a connection\n");
        exit(1);
    }
    struct cmsghdr *found = CMSG_FIRSTHDR(&message);
    struct timespec t;
    if (!found || s->count == READS) { fprintf(stderr, "no stamp, or too many reads\n"); exit(1); }
    memcpy(&t, CMSG_DATA(found), sizeof t);
    s->reads[s->count++] = t.tv_sec * 1000000000LL + t.tv_nsec + offset;
    return size >= 5 && !memcmp(piece + size - 5, "0\r\n\r\n", 5);
}

static void write_out(Stream *s) {
    fprintf(out, "{\"id\":\"%012lld\",\"sent_ns\":%lld,\"reads\":[", s->id, s->sent_ns);
    for (int k = 0; k < s->count; k++) fprintf(out, k ? ",%lld" : "%lld", s->reads[k]);
    fprintf(out, "]}\n");
}

static void measure_offset(void) {
    i64 width = 1000000000;
    for (int k = 0; k < 9; k++) {
        i64 before = clock_ns(CLOCK_MONOTONIC), real = clock_ns(CLOCK_REALTIME), after = clock_ns(CLOCK_MONOTONIC);
        if (after - before < width) { width = after - before; offset = (before + after) / 2 - real; }
    }
}

static void read_request(const char *path) {
    FILE *in = fopen(path, "rb");
    if (!in) { perror(path); exit(1); }
    request_size = fread(request, 1, sizeof request - 1, in);
    fclose(in);
    char *id = strstr(request, "000000000000");
    if (!id) { fprintf(stderr, "%s has no id of 12 zeros\n", path); exit(1); }
    id_at = id - request;
}

static void open_stream(Stream *s, int port, int epoll_fd) {
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s->fd, (struct sockaddr *)&address, sizeof address)) { perror("connect"); exit(1); }
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(s->fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &e);
}

int main(int argc, char **argv) {
    static struct epoll_event ready[4096];
    if (argc != 6) { fprintf(stderr, "usage: floor PORT STREAMS SECONDS REQUEST OUT\n"); return 2; }
    int count = atoi(argv[2]), epoll_fd = epoll_create1(0), open_streams = count;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_request(argv[4]);
    if (!(out = fopen(argv[5], "w"))) { perror(argv[5]); return 1; }
    Stream *streams = calloc(count, sizeof(Stream));
    for (int k = 0; k < count; k++) open_stream(streams + k, atoi(argv[1]), epoll_fd);
    i64 until = clock_ns(CLOCK_MONOTONIC) + atoi(argv[3]) * 1000000000LL, measure_at = 0;
    for (int k = 0; k < count; k++) send_next(streams + k);
    while (open_streams) {
        int found = epoll_wait(epoll_fd, ready, 4096, -1);
        i64 now = clock_ns(CLOCK_MONOTONIC);
        if (now > measure_at) { measure_offset(); measure_at = now + 1000000000LL; }
        for (int k = 0; k < found; k++) {
            Stream *s = ready[k].data.ptr;
            if (!read_one(s)) continue;
            write_out(s);
            if (now < until) send_next(s);
            else open_streams--;
        }
    }
    return fclose(out) != 0;
}
