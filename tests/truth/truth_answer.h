/* What the ground-truth server answers with: the script in a request's body, and the bytes of every step of an answer. See truth_server.c. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef long long i64;

typedef struct {
    i64 ttft_ns, gap_ns, role_ns, usage_delay_ns, split_ns;
    int tokens, per_chunk, reasoning, prompt_tokens, cached_tokens, events_per_write, usage_each, at, stream, chat, include_usage;
    char split[8], eol[8], framing[8], close[8], fault[16], model[80];
} Script;

typedef struct {
    char *data;
    size_t size, room;
} Buffer;

typedef struct {
    int fd, serial, busy, serving, step, generation, next_chunk, want_write, close_when_sent, idle_close;
    Buffer in, payload, unsent;
    size_t sent_of_payload;   /* of the step's payload: handed to the kernel */
    size_t *cuts, cut_count, cut_room, cut_at;
    size_t *marks, mark_count, mark_room, mark_at; /* payload offsets after the last byte of each content event */
    i64 arrived_ns, received_ns, begun_ns, due_ns; /* kernel's stamp of the request; whole request here; a slot is free; when the last content was due */
    i64 *before, *after; /* each content event: right before and right after the write with its last byte */
    int stamp_count, stamp_room;
    SSL *tls; /* NULL without TLS */
    char id[200], *body; /* the request's body, kept where it asks for `log_body` */
    Script script;
} Conn;

static void *grow(void *old, size_t size) {
    void *grown = realloc(old, size);
    if (!grown) { perror("realloc"); exit(1); }
    return grown;
}

static void add(Buffer *b, const void *data, size_t size) {
    if (b->size + size + 1 > b->room) b->data = grow(b->data, b->room = (b->size + size + 1) * 2);
    memcpy(b->data + b->size, data, size);
    b->data[b->size += size] = 0;
}

static void add_text(Buffer *b, const char *text) { add(b, text, strlen(text)); }

static void mark(size_t **list, size_t *count, size_t *room, size_t value) {
    if (*count == *room) *list = grow(*list, (*room = *room * 2 + 16) * sizeof(size_t));
    (*list)[(*count)++] = value;
}

/* ---- reading the script */

static const char *value_of(const char *from, const char *key) {
    char quoted[40];
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    for (const char *at = from; at && (at = strstr(at, quoted));) {
        at += strlen(quoted);
        at += strspn(at, " ");
        if (*at == ':') return at + 1 + strspn(at + 1, " "); /* else it was a value, not a key */
    }
    return NULL;
}

static double number_of(const char *from, const char *key, double otherwise) {
    const char *at = value_of(from, key);
    if (at && !strncmp(at, "true", 4)) return 1;
    if (at && !strncmp(at, "false", 5)) return 0;
    return at ? strtod(at, NULL) : otherwise;
}

static void word_of(char *out, size_t room, const char *from, const char *key, const char *otherwise) {
    const char *at = value_of(from, key);
    snprintf(out, room, "%s", otherwise);
    if (!at || *at != '"') return;
    size_t length = strcspn(at + 1, "\"");
    if (length >= room) length = room - 1;
    memcpy(out, at + 1, length);
    out[length] = 0;
}

static double default_ttft_ms = 20, default_gap_ms = 5; /* of requests without a script */

static void read_script(Script *s, const char *path, const char *body) {
    const char *truth = value_of(body, "truth");
    if (!truth) truth = getenv("TRUTH_SCRIPT");
    double role_ms = number_of(truth, "role_ms", -1);
    memset(s, 0, sizeof *s);
    s->ttft_ns = (i64)(number_of(truth, "ttft_ms", default_ttft_ms) * 1e6);
    s->gap_ns = (i64)(number_of(truth, "gap_ms", default_gap_ms) * 1e6);
    s->role_ns = role_ms < 0 ? s->ttft_ns : (i64)(role_ms * 1e6);
    s->usage_delay_ns = (i64)(number_of(truth, "usage_delay_ms", 0) * 1e6);
    s->split_ns = (i64)(number_of(truth, "split_us", 300) * 1e3);
    s->tokens = (int)number_of(truth, "tokens", number_of(body, "max_tokens", 16));
    s->per_chunk = (int)number_of(truth, "per_chunk", 1);
    s->reasoning = (int)number_of(truth, "reasoning", 0);
    s->prompt_tokens = (int)number_of(truth, "prompt_tokens", 7);
    s->cached_tokens = (int)number_of(truth, "cached_tokens", -1);
    s->events_per_write = (int)number_of(truth, "events_per_write", 1);
    s->usage_each = (int)number_of(truth, "usage_each", 0);
    s->at = (int)number_of(truth, "at", 1);
    s->stream = (int)number_of(body, "stream", 0);
    s->include_usage = (int)number_of(body, "include_usage", 0);
    s->chat = strstr(path, "/chat/") != NULL;
    word_of(s->split, sizeof s->split, truth, "split", "none");
    word_of(s->eol, sizeof s->eol, truth, "eol", "lf");
    word_of(s->framing, sizeof s->framing, truth, "framing", "chunked");
    word_of(s->close, sizeof s->close, truth, "close", "no");
    word_of(s->fault, sizeof s->fault, truth, "fault", "none");
    word_of(s->model, sizeof s->model, body, "model", "truth");
}

static int is(const char *word, const char *other) { return !strcmp(word, other); }

/* ---- writing answers */

/* Every fourth token holds characters of two and of four bytes. */
static void token_text(char *out, size_t room, int k) { snprintf(out, room, k % 4 == 3 ? " \xc3\xa9%d\xf0\x9f\x99\x82" : " w%d", k); }

static void usage_text(char *out, size_t room, const Script *s, int tokens) {
    int at = snprintf(out, room, "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d", s->prompt_tokens, tokens, s->prompt_tokens + tokens);
    if (s->cached_tokens >= 0) at += snprintf(out + at, room - at, ",\"prompt_tokens_details\":{\"cached_tokens\":%d}", s->cached_tokens);
    snprintf(out + at, room - at, "}");
}

static void add_framed(Buffer *b, const Script *s, const char *data, size_t size) {
    char head[24];
    if (is(s->framing, "eof")) { add(b, data, size); return; }
    add(b, head, snprintf(head, sizeof head, "%zx\r\n", size));
    add(b, data, size);
    add(b, "\r\n", 2);
}

/* One SSE event; returns the payload offset after its last byte. */
static size_t add_event(Conn *c, const char *json) {
    Script *s = &c->script;
    const char *eol = is(s->eol, "crlf") ? "\r\n\r\n" : "\n\n";
    Buffer event = {0};
    add_text(&event, "data: ");
    add_text(&event, json);
    add_text(&event, eol);
    size_t half = event.size / 2;
    if (is(s->split, "chunk") && is(s->framing, "chunked")) {
        add_framed(&c->payload, s, event.data, half);
        mark(&c->cuts, &c->cut_count, &c->cut_room, c->payload.size);
        add_framed(&c->payload, s, event.data + half, event.size - half);
    } else {
        if (is(s->split, "half")) mark(&c->cuts, &c->cut_count, &c->cut_room, c->payload.size + half);
        add_framed(&c->payload, s, event.data, event.size);
    }
    free(event.data);
    return c->payload.size - (is(s->framing, "eof") ? 0 : 2);
}

static void add_choice_event(Conn *c, int first, int count, const char *finish) {
    Script *s = &c->script;
    Buffer text = {0};
    char json[8192], token[40], usage[200] = "";
    add_text(&text, "");
    for (int k = first; k < first + count; k++) { token_text(token, sizeof token, k); add_text(&text, token); }
    if (s->usage_each) { usage[0] = ','; usage_text(usage + 1, sizeof usage - 1, s, first < 0 ? 0 : first + count); }
    const char *field = count && first < s->reasoning ? "reasoning_content" : "content";
    int at = snprintf(json, sizeof json, "{\"id\":\"%.120s\",\"object\":\"%s\",\"created\":1,\"model\":\"%s\",\"choices\":[{\"index\":0,", c->id,
                      s->chat ? "chat.completion.chunk" : "text_completion", s->model);
    if (s->chat) at += snprintf(json + at, sizeof json - at, "\"delta\":{%s\"%s\":\"%.6000s\"}", first < 0 ? "\"role\":\"assistant\"," : "", field, text.data);
    else at += snprintf(json + at, sizeof json - at, "\"text\":\"%.6000s\"", text.data);
    snprintf(json + at, sizeof json - at, ",\"finish_reason\":%s}]%s}", finish, usage);
    size_t end = add_event(c, json);
    if (count) mark(&c->marks, &c->mark_count, &c->mark_room, end);
    free(text.data);
}

static void add_head(Conn *c, const char *status, const char *type, i64 length) {
    char head[400], framing[60] = "Transfer-Encoding: chunked\r\n";
    if (length >= 0) snprintf(framing, sizeof framing, "Content-Length: %lld\r\n", length);
    else if (is(c->script.framing, "eof")) framing[0] = 0;
    int closes = is(c->script.close, "header") || (length < 0 && is(c->script.framing, "eof"));
    add(&c->payload, head, snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nX-Request-Id: %.150s\r\n%s%s\r\n", status, type, c->id, framing,
                                    closes ? "Connection: close\r\n" : ""));
}

static void add_plain(Conn *c, const char *status, const char *type, const char *body) {
    add_head(c, status, type, (i64)strlen(body));
    add_text(&c->payload, body);
}

enum { HEAD, ROLE, CONTENT, FINISH, END };

static void add_plain_answer(Conn *c) {
    Script *s = &c->script;
    Buffer text = {0}, body = {0};
    char token[40], usage[200], head[300];
    add_text(&text, "");
    for (int k = 0; k < s->tokens; k++) { token_text(token, sizeof token, k); add_text(&text, token); }
    usage_text(usage, sizeof usage, s, s->tokens);
    add(&body, head, snprintf(head, sizeof head, "{\"id\":\"%.120s\",\"object\":\"%s\",\"model\":\"%s\",\"choices\":[{\"index\":0,", c->id,
                              s->chat ? "chat.completion" : "text_completion", s->model));
    add_text(&body, s->chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"");
    add_text(&body, text.data);
    add_text(&body, s->chat ? "\"},\"finish_reason\":\"stop\"}]," : "\",\"finish_reason\":\"stop\"}],");
    add_text(&body, usage);
    add_text(&body, "}");
    if (is(s->fault, "bad_json")) body.data[body.size /= 2] = 0;
    add_plain(c, "200 OK", "application/json", body.data);
    free(text.data);
    free(body.data);
}

/* Put the bytes of the step that is due into c->payload and move on to the next one. */
static void build_step(Conn *c) {
    Script *s = &c->script;
    char usage[300], json[700];
    int chunks = (s->tokens + s->per_chunk - 1) / s->per_chunk;
    if (c->step == HEAD) {
        add_head(c, "200 OK", "text/event-stream; charset=utf-8", -1);
        c->step = s->chat ? ROLE : chunks ? CONTENT : FINISH;
    } else if (c->step == ROLE) {
        add_choice_event(c, -1, 0, "null");
        c->step = chunks ? CONTENT : FINISH;
    } else if (c->step == CONTENT) {
        for (int e = 0; e < s->events_per_write && c->next_chunk < chunks; e++, c->next_chunk++) {
            int first = c->next_chunk * s->per_chunk, left = s->tokens - first;
            add_choice_event(c, first, left < s->per_chunk ? left : s->per_chunk, "null");
        }
        if (c->next_chunk == chunks) c->step = FINISH;
    } else if (c->step == FINISH) {
        if (!is(s->fault, "no_done")) add_choice_event(c, s->tokens, 0, "\"stop\"");
        c->step = END;
    } else {
        if (s->include_usage && !is(s->fault, "no_usage")) {
            usage_text(usage, sizeof usage, s, s->tokens);
            snprintf(json, sizeof json, "{\"id\":\"%.120s\",\"object\":\"chat.completion.chunk\",\"choices\":[],%s}", c->id, usage);
            add_event(c, json);
        }
        if (!is(s->fault, "no_done")) add_event(c, "[DONE]");
        if (!is(s->framing, "eof")) add_text(&c->payload, "0\r\n\r\n");
        c->step = END + 1;
    }
}

static void cut_payload(Conn *c) {
    Buffer *p = &c->payload;
    if (is(c->script.split, "byte"))
        for (size_t k = 1; k < p->size; k++) mark(&c->cuts, &c->cut_count, &c->cut_room, k);
    if (is(c->script.split, "utf8"))
        for (size_t k = 0; k < p->size; k++)
            if ((unsigned char)p->data[k] >= 0xC0) mark(&c->cuts, &c->cut_count, &c->cut_room, k + 1);
    mark(&c->cuts, &c->cut_count, &c->cut_room, p->size);
}
