/* A server whose timings are known: OpenAI-like answers over HTTP/1.1, one thread, epoll, no dependency.
 *
 *     cc -O2 -o truth_server truth_server.c && ./truth_server PORT LOG [--slots K] [--knee N] [--ttft MS] [--gap MS] [MODEL...]
 *
 * PORT 0: any; it is printed as "port N"; [::1]:PORT listens on IPv6, *:PORT on every IPv4 address; a path that begins with / is a Unix socket.
 *
 * Capacity: at most K requests are served at a time, the others wait in order of arrival (0, the default: no limit). While n are served, every time is
 * stretched by max(1, n / N): N / gap_ms is the most tokens the server can make (0, the default: no stretch). So with a script of ttft, gap, tokens:
 *     --slots 1             single server: capacity 1 / (ttft + gap x (tokens - 1)) requests/s
 *     --slots K             K servers, K times that: a batch of fixed speed
 *     --slots K --knee N    a batch whose latency is flat up to N and grows in proportion beyond it: capacity N times that, reached at n = N
 *
 * --ttft and --gap are what requests get whose script does not say (20 and 5).
 *
 * What it does with a request stands in the request's own JSON body, all of it optional:
 *
 *     "truth": {"ttft_ms": 20, "gap_ms": 5, "tokens": 16 (or max_tokens), "per_chunk": 1, "reasoning": 0 (first tokens), "prompt_tokens": 7,
 *               "cached_tokens": -1 (left out), "role_ms": -1 (with the first token), "events_per_write": 1, "usage_delay_ms": 0, "usage_each": 0,
 *               "split": "none|byte|half|utf8|chunk", "split_us": 300, "eol": "lf|crlf", "framing": "chunked|eof", "close": "no|header|idle",
 *               "fault": "none|reset|close|stall|hang|garbage|bad_chunk|bad_json|error_event|no_usage|no_done|http401|http429|http500", "at": 1}
 *
 * `at`: the fault strikes after so many content chunks. Headers are sent when the request is whole; content chunk k at received + ttft + k * gap,
 * absolute, so that delays do not add up (received: when a slot was free). `half`, `utf8` and `byte` cut writes, `chunk` cuts an event over two HTTP chunks.
 *
 * A body without "truth" is answered by the script in the environment variable TRUTH_SCRIPT, in the same form: other clients than ours cannot send one.
 * TLS: see truth_tls.h.
 *
 * With "log_body": 1 the log's line holds the request's body, which must have no line end in it.
 * LOG gets one JSON line an answer: {"id", "arrived_ns", "received_ns", "chunks": [ns...], "written": [ns...], "end_ns", "connection"}, CLOCK_MONOTONIC;
 * arrived_ns is the kernel's stamp of the request's last segment (0 where it gives none), received_ns is taken when it has been read; chunks[k] is taken
 * right before the write that holds the last byte of content event k (of its blank line), written[k] right after it. Text of token k: token_text in
 * truth_answer.h.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "truth_tls.h"
#include "truth_answer.h"

typedef struct {
    i64 when;
    int fd, generation;
} Due;

static Conn *conns[1 << 16];
static Due *heap, *waiting; /* waiting: a ring of requests without a slot; `when` is not used */
static int heap_size, heap_room, epoll_fd, timer_fd, serials, running, slots, serving, waiting_first, waiting_count, waiting_room;
static double knee;
static i64 served, prompt_total, output_total;
static FILE *log_file;
static char **models;
static int model_count;

static i64 now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* ---- time: a heap of what is due */

static void heap_push(i64 when, int fd, int generation) {
    if (heap_size == heap_room) heap = grow(heap, (heap_room = heap_room * 2 + 1024) * sizeof(Due));
    int i = heap_size++;
    while (i && heap[(i - 1) / 2].when > when) { heap[i] = heap[(i - 1) / 2]; i = (i - 1) / 2; }
    heap[i] = (Due){when, fd, generation};
}

static Due heap_pop(void) {
    Due top = heap[0], last = heap[--heap_size];
    int i = 0;
    for (;;) {
        int child = 2 * i + 1;
        if (child >= heap_size) break;
        if (child + 1 < heap_size && heap[child + 1].when < heap[child].when) child++;
        if (heap[child].when >= last.when) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* ---- connections and answers in time */

static void begin(Conn *c);

static void wait_for_slot(Conn *c) {
    if (waiting_count == waiting_room) {
        int room = waiting_room * 2 + 1024;
        Due *longer = grow(NULL, room * sizeof(Due));
        for (int k = 0; k < waiting_count; k++) longer[k] = waiting[(waiting_first + k) % waiting_room];
        free(waiting);
        waiting = longer, waiting_room = room, waiting_first = 0;
    }
    waiting[(waiting_first + waiting_count++) % waiting_room] = (Due){0, c->fd, c->generation};
}

/* The answer is over, or its connection: the first that still waits takes the slot. */
static void leave_slot(Conn *c) {
    if (!c->serving) return;
    c->serving = 0;
    serving--;
    while (waiting_count && (!slots || serving < slots)) {
        Due next = waiting[waiting_first];
        waiting_first = (waiting_first + 1) % waiting_room;
        waiting_count--;
        if (conns[next.fd] && conns[next.fd]->generation == next.generation) begin(conns[next.fd]);
    }
}

static void close_conn(Conn *c) {
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    close(c->fd);
    conns[c->fd] = NULL;
    running -= c->busy;
    leave_slot(c);
    if (c->tls) tls_free(c->tls);
    free(c->in.data); free(c->payload.data); free(c->unsent.data); free(c->cuts); free(c->marks); free(c->before); free(c->after); free(c->body); free(c);
}

static void log_answer(Conn *c) {
    fprintf(log_file, "{\"id\":\"%s\",\"arrived_ns\":%lld,\"received_ns\":%lld,\"connection\":%d,\"chunks\":[", c->id, c->arrived_ns, c->received_ns, c->serial);
    for (int k = 0; k < c->stamp_count; k++) fprintf(log_file, k ? ",%lld" : "%lld", c->before[k]);
    fprintf(log_file, "],\"written\":[");
    for (int k = 0; k < c->stamp_count; k++) fprintf(log_file, k ? ",%lld" : "%lld", c->after[k]);
    if (c->body) fprintf(log_file, "],\"body\":%s,\"end_ns\":%lld}\n", c->body, now_ns());
    else fprintf(log_file, "],\"end_ns\":%lld}\n", now_ns());
    fflush(log_file);
}

/* Hand over bytes as they are; what the kernel does not take is kept until it can be written. Returns 0 when the connection is gone. */
static int put_raw(Conn *c, const char *data, size_t size) {
    ssize_t sent = c->unsent.size ? 0 : send(c->fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return 0;
    if (sent < 0) sent = 0;
    if ((size_t)sent < size) {
        add(&c->unsent, data + sent, size - sent);
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.fd = c->fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    }
    return 1;
}

/* The same, encrypted where the connection is. Also hands over what TLS itself has to say. */
static int put(Conn *c, const char *data, size_t size) {
    if (!c->tls) return put_raw(c, data, size);
    tls_encrypt(c->tls, data, size);
    size_t ready = tls_records(c->tls, &data);
    int there = ready ? put_raw(c, data, ready) : 1;
    tls_written(c->tls);
    return there;
}

static i64 step_time(Conn *c) {
    Script *s = &c->script;
    int chunks = (s->tokens + s->per_chunk - 1) / s->per_chunk;
    int last_write = chunks ? (chunks - 1) / s->events_per_write * s->events_per_write : 0;
    double stretch = knee && serving > knee ? serving / knee : 1;
    if (!s->stream) return c->begun_ns + (i64)((s->ttft_ns + s->gap_ns * (s->tokens - 1)) * stretch);
    if (c->step == HEAD) return c->begun_ns;
    if (c->step == ROLE) return c->begun_ns + (i64)(s->role_ns * stretch);
    if (knee) { /* how many are served changes while an answer runs: each gap is stretched by what holds when it begins */
        if (c->step == CONTENT) c->due_ns += (i64)((c->next_chunk ? s->gap_ns * s->events_per_write : s->ttft_ns) * stretch);
        return c->due_ns + (c->step == END ? s->usage_delay_ns : 0);
    }
    if (c->step == CONTENT) return c->begun_ns + s->ttft_ns + s->gap_ns * c->next_chunk;
    return c->begun_ns + s->ttft_ns + s->gap_ns * last_write + (c->step == END ? s->usage_delay_ns : 0);
}

static int finish_answer(Conn *c) {
    int closes = is(c->script.close, "header") || is(c->script.framing, "eof");
    log_answer(c);
    served++;
    prompt_total += c->script.prompt_tokens;
    output_total += c->script.tokens;
    running -= c->busy;
    c->busy = 0;
    c->generation++;
    leave_slot(c);
    if (closes && !c->unsent.size) { close_conn(c); return 0; }
    c->close_when_sent = closes;
    if (is(c->script.close, "idle")) { c->idle_close = 1; heap_push(now_ns() + 20000000, c->fd, c->generation); }
    return 1;
}

/* The fault that strikes now, if any. Returns 1 when it has taken over the answer, -1 when the connection is gone. */
static int strike(Conn *c) {
    Script *s = &c->script;
    if (is(s->fault, "none") || is(s->fault, "no_usage") || is(s->fault, "no_done") || (!s->stream && is(s->fault, "bad_json"))) return 0;
    if (s->stream && c->next_chunk < s->at) return 0;
    if (is(s->fault, "bad_json")) { add_event(c, "{\"choices\": [{\"delta\": "); strcpy(s->fault, "none"); return 0; }
    if (is(s->fault, "error_event")) {
        add_event(c, "{\"error\":{\"message\":\"the engine has died\",\"type\":\"InternalServerError\",\"code\":500}}");
        c->step = END;
        strcpy(s->fault, "no_usage");
        return 0;
    }
    log_answer(c);
    if (is(s->fault, "stall")) { c->generation++; return 1; }
    if (is(s->fault, "bad_chunk")) { put(c, "zz\r\nno length\r\n", 15); c->generation++; return 1; }
    if (is(s->fault, "reset")) {
        struct linger hard = {1, 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    close_conn(c); /* reset, close */
    return -1;
}

/* Do what is due on a connection: the next piece of a payload, or the next step. */
static void advance(Conn *c) {
    Script *s = &c->script;
    if (c->idle_close) { close_conn(c); return; }
    if (c->cut_at == c->cut_count) {
        c->payload.size = c->sent_of_payload = c->cut_count = c->cut_at = c->mark_count = c->mark_at = 0;
        int struck = strike(c);
        if (struck) return;
        if (s->stream) build_step(c);
        else { add_plain_answer(c); c->step = END + 1; }
        cut_payload(c);
    }
    size_t end = c->cuts[c->cut_at++];
    int earlier = c->stamp_count;
    i64 stamp = now_ns();
    for (; c->mark_at < c->mark_count && c->marks[c->mark_at] <= end; c->mark_at++) {
        if (c->stamp_count == c->stamp_room) {
            c->stamp_room = c->stamp_room * 2 + 64;
            c->before = grow(c->before, c->stamp_room * sizeof(i64));
            c->after = grow(c->after, c->stamp_room * sizeof(i64));
        }
        c->before[c->stamp_count] = c->after[c->stamp_count] = stamp;
        c->stamp_count++;
    }
    if (!put(c, c->payload.data + c->sent_of_payload, end - c->sent_of_payload)) { log_answer(c); close_conn(c); return; }
    c->sent_of_payload = end;
    for (int k = earlier; k < c->stamp_count; k++) c->after[k] = now_ns();
    if (c->cut_at < c->cut_count) heap_push(stamp + s->split_ns, c->fd, c->generation);
    else if (c->step == END + 1) finish_answer(c);
    else heap_push(step_time(c), c->fd, c->generation);
}

/* ---- requests */

static void send_now(Conn *c) {
    put(c, c->payload.data, c->payload.size);
    c->payload.size = 0;
}

static void answer_get(Conn *c, const char *path) {
    char body[4000];
    memset(&c->script, 0, sizeof c->script);
    c->payload.size = 0;
    if (!strncmp(path, "/health", 7)) add_plain(c, "200 OK", "text/plain", "");
    else if (!strncmp(path, "/v1/models", 10)) {
        int at = snprintf(body, sizeof body, "{\"object\":\"list\",\"data\":[");
        for (int k = 0; k < model_count; k++)
            at += snprintf(body + at, sizeof body - at, "%s{\"id\":\"%.80s\",\"object\":\"model\",\"max_model_len\":8192}", k ? "," : "", models[k]);
        snprintf(body + at, sizeof body - at, "]}");
        add_plain(c, "200 OK", "application/json", body);
    } else if (!strncmp(path, "/metrics", 8)) {
        snprintf(body, sizeof body,
                 "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0\"} %d\n"
                 "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{engine=\"0\"} %d\n"
                 "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n"
                 "# TYPE vllm:num_preemptions counter\nvllm:num_preemptions_total{engine=\"0\"} 0\n"
                 "# TYPE vllm:prefix_cache_queries counter\nvllm:prefix_cache_queries_total{engine=\"0\"} %lld\n"
                 "# TYPE vllm:prefix_cache_hits counter\nvllm:prefix_cache_hits_total{engine=\"0\"} 0\n"
                 "# TYPE vllm:prompt_tokens counter\nvllm:prompt_tokens_total{engine=\"0\"} %lld\n"
                 "# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total{engine=\"0\"} %lld\n"
                 "# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"1000\",engine=\"0\"} 1\n",
                 running - waiting_count, waiting_count, prompt_total, prompt_total, output_total);
        add_plain(c, "200 OK", "text/plain; version=0.0.4", body);
    } else add_plain(c, "404 Not Found", "application/json", "{\"error\":{\"message\":\"no such path\"}}");
    send_now(c);
}

static void begin(Conn *c) {
    c->begun_ns = c->due_ns = now_ns();
    c->serving = 1;
    serving++;
    heap_push(c->script.stream ? c->begun_ns : step_time(c), c->fd, c->generation);
}

static void start_answer(Conn *c, const char *head, const char *path, const char *body) {
    Script *s = &c->script;
    const char *id = strcasestr(head, "\r\nx-request-id:");
    snprintf(c->id, sizeof c->id, "anonymous-%d", serials++);
    if (id) {
        id += 15 + strspn(id + 15, " ");
        snprintf(c->id, sizeof c->id, "%.*s", (int)strcspn(id, "\r"), id);
    }
    read_script(s, path, body);
    free(c->body);
    c->body = number_of(value_of(body, "truth"), "log_body", 0) ? strdup(body) : NULL;
    c->received_ns = now_ns();
    c->busy = 1;
    running++;
    c->step = HEAD;
    c->next_chunk = c->stamp_count = 0;
    c->payload.size = c->cut_count = c->cut_at = c->sent_of_payload = 0;
    if (is(s->fault, "hang")) { log_answer(c); return; }
    if (is(s->fault, "garbage")) { put(c, "220 this is not HTTP\r\n", 22); log_answer(c); return; }
    if (!strncmp(s->fault, "http", 4)) {
        char status[40], message[400];
        const char *key = strcasestr(head, "\r\nauthorization:"); /* told back, as careless servers do: a client must not store it */
        snprintf(status, sizeof status, "%s Refused", s->fault + 4);
        snprintf(message, sizeof message, "{\"error\":{\"message\":\"refused with %s as asked%s%.*s\"}}", s->fault + 4, key ? ": " : "",
                 key ? (int)strcspn(key + 17, "\r") : 0, key ? key + 17 : "");
        add_plain(c, status, "application/json", message);
        send_now(c);
        finish_answer(c);
        return;
    }
    if (slots && serving >= slots) wait_for_slot(c);
    else begin(c);
}

/* Take whole requests out of the input buffer; one at a time is answered. */
static void take_request(Conn *c) {
    char *end = c->in.size ? strstr(c->in.data, "\r\n\r\n") : NULL;
    if (!end || c->busy) return;
    *end = 0;
    const char *length_at = strcasestr(c->in.data, "\r\ncontent-length:");
    size_t length = length_at ? strtoul(length_at + 17, NULL, 10) : 0, head = end - c->in.data + 4;
    *end = '\r';
    if (c->in.size < head + length) return;
    char *text = strndup(c->in.data, head - 2), *body = strndup(c->in.data + head, length), path[300] = "";
    sscanf(text, "%*15s %299s", path);
    memmove(c->in.data, c->in.data + head + length, c->in.size - head - length + 1);
    c->in.size -= head + length;
    c->idle_close = 0;
    c->generation++;
    if (strncmp(text, "POST", 4)) answer_get(c, path);
    else start_answer(c, text, path, body);
    free(text);
    free(body);
}

/* CLOCK_MONOTONIC minus CLOCK_REALTIME, by the narrowest of three readings of one between two of the other. */
static i64 realtime_offset(void) {
    i64 best_width = -1, offset = 0;
    for (int k = 0; k < 3; k++) {
        struct timespec t;
        i64 before = now_ns();
        clock_gettime(CLOCK_REALTIME, &t);
        i64 after = now_ns();
        if (best_width < 0 || after - before < best_width) { best_width = after - before; offset = (before + after) / 2 - (t.tv_sec * 1000000000LL + t.tv_nsec); }
    }
    return offset;
}

/* Read, and note when the kernel received the last of it. */
static ssize_t receive(Conn *c, char *piece, size_t room) {
    char control[CMSG_SPACE(sizeof(struct timespec))] __attribute__((aligned(8)));
    struct iovec where = {piece, room};
    struct msghdr message = {.msg_iov = &where, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(c->fd, &message, 0);
    struct cmsghdr *found = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (found && found->cmsg_level == SOL_SOCKET && found->cmsg_type == SCM_TIMESTAMPNS) {
        struct timespec t;
        memcpy(&t, CMSG_DATA(found), sizeof t);
        c->arrived_ns = t.tv_sec * 1000000000LL + t.tv_nsec + realtime_offset();
    }
    return size;
}

static void on_readable(Conn *c) {
    static char piece[1 << 16];
    ssize_t size = receive(c, piece, sizeof piece);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        if (c->busy && !is(c->script.fault, "hang") && !is(c->script.fault, "stall") && !is(c->script.fault, "garbage") && !is(c->script.fault, "bad_chunk")) log_answer(c);
        close_conn(c);
        return;
    }
    if (c->tls) {
        tls_receive(c->tls, piece, size);
        while ((size = tls_decrypt(c->tls, piece, sizeof piece)) > 0) add(&c->in, piece, size);
        if (!put(c, NULL, 0)) { close_conn(c); return; }
    } else add(&c->in, piece, size);
    take_request(c);
}

static void on_writable(Conn *c) {
    ssize_t sent = send(c->fd, c->unsent.data, c->unsent.size, MSG_NOSIGNAL);
    if (sent < 0) return;
    memmove(c->unsent.data, c->unsent.data + sent, c->unsent.size - sent);
    if ((c->unsent.size -= sent)) return;
    struct epoll_event e = {.events = EPOLLIN, .data.fd = c->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
    if (c->close_when_sent) close_conn(c);
}

static void on_connect(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= (int)(sizeof conns / sizeof *conns)) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
        conns[fd] = calloc(1, sizeof(Conn));
        conns[fd]->tls = tls_new();
        conns[fd]->fd = fd;
        conns[fd]->serial = serials++;
        conns[fd]->generation = conns[fd]->serial * 1024; /* what was due on an earlier connection with this number is not for this one */
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static int listen_on_ipv6(int port) {
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t size = sizeof address;
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) { perror("listen"); exit(1); }
    getsockname(fd, (struct sockaddr *)&address, &size);
    printf("port %d\n", ntohs(address.sin6_port));
    fflush(stdout);
    return fd;
}

static int listen_on_unix(const char *path) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) { perror("listen"); exit(1); }
    printf("port 0\n");
    fflush(stdout);
    return fd;
}

static int listen_on(int port, in_addr_t host) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(host)};
    socklen_t size = sizeof address;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) { perror("listen"); exit(1); }
    getsockname(fd, (struct sockaddr *)&address, &size);
    printf("port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void sleep_until_due(void) {
    struct itimerspec when = {0};
    if (heap_size) { when.it_value.tv_sec = heap[0].when / 1000000000; when.it_value.tv_nsec = heap[0].when % 1000000000; }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

int main(int argc, char **argv) {
    static char *default_models[] = {"truth"};
    static struct epoll_event ready[1024];
    int named = 3;
    if (argc < 3) { fprintf(stderr, "usage: truth_server PORT LOG [--slots K] [--knee N] [--ttft MS] [--gap MS] [MODEL...]\n"); return 2; }
    for (; named + 1 < argc && !strncmp(argv[named], "--", 2); named += 2)
        if (!strcmp(argv[named], "--slots")) slots = atoi(argv[named + 1]);
        else if (!strcmp(argv[named], "--ttft")) default_ttft_ms = atof(argv[named + 1]);
        else if (!strcmp(argv[named], "--gap")) default_gap_ms = atof(argv[named + 1]);
        else knee = atof(argv[named + 1]);
    models = argc > named ? argv + named : default_models;
    model_count = argc > named ? argc - named : 1;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    tls_start();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1000);
    if (!(log_file = fopen(argv[2], "w"))) { perror(argv[2]); return 1; }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int listener = *argv[1] == '/' ? listen_on_unix(argv[1])
        : !strncmp(argv[1], "[::1]:", 6) ? listen_on_ipv6(atoi(argv[1] + 6))
        : !strncmp(argv[1], "*:", 2) ? listen_on(atoi(argv[1] + 2), INADDR_ANY) : listen_on(atoi(argv[1]), INADDR_LOOPBACK);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, t = {.events = EPOLLIN, .data.fd = timer_fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &t);
    for (;;) {
        sleep_until_due();
        int count = epoll_wait(epoll_fd, ready, 1024, -1);
        for (int k = 0; k < count; k++) {
            int fd = ready[k].data.fd;
            if (fd == listener) on_connect(listener);
            else if (fd == timer_fd) { i64 ticks; if (read(timer_fd, &ticks, 8) < 0) continue; }
            else {
                if (conns[fd] && ready[k].events & EPOLLOUT) on_writable(conns[fd]);
                if (conns[fd] && ready[k].events & ~EPOLLOUT) on_readable(conns[fd]);
            }
        }
        for (i64 now = now_ns(); heap_size && heap[0].when <= now;) {
            Due due = heap_pop();
            Conn *c = conns[due.fd];
            if (c && c->generation == due.generation) advance(c);
        }
    }
}
