/* Load for sync servers: many WebSocket clients that speak the y-websocket protocol, in one thread around epoll.
 *
 * Compiled, because an interpreted client would be measured instead of the server. What it receives it checks: each
 * viewer knows which characters stand at which clock, and the first wrong, doubled, or missing one ends the run.
 *
 *   load fan-out   S agents stream tokens to M viewers each, as fast as a window allows, or paced
 *   load join      N clients at once ask for what they lack, and count what they are sent
 *   load idle      N sessions with one client each; then some of them become active
 *   load relay     no client but a server: forwards without a document, to show what this program can take in
 *
 * Lines of JSON go to standard output, one when something begins or ends, so that whoever started this can look at
 * the server meanwhile. Source of the formats: RFC 6455, y-protocols PROTOCOL.md, Yjs encoding.js (update v1).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { TOKEN = 5, CHUNK = 1 << 18 };

typedef struct {
    uint8_t *bytes;
    size_t length, start, capacity;
} Buffer;

typedef struct Session Session;

typedef struct {
    int fd;
    int upgraded, synced, writing, greeted;
    Session *session;
    int agent;
    uint64_t next; /* clock up to which the viewer has the agent's text */
    double begun, done;
    size_t received;
    Buffer in, out;
} Client;

struct Session {
    char name[32];
    uint32_t author;
    uint64_t sent;    /* tokens */
    uint64_t slowest; /* tokens that every viewer has */
    double first_due;
    float *sent_at; /* by token; only when paced */
    Client *agent;
    Client **viewers;
};

static const char *host = "127.0.0.1", *prefix = "/", *dialect = "y-websocket", *vector_file, *dump_file;
static int port, sessions = 1, viewers = 1, joins = 1, active = 0, per_text = 1000;
static double rate = 0, seconds = 3, warmup = 1, patience = 60;
static uint64_t window = 0, max_tokens = 4000000, progress = 0;
static int hocuspocus, epoll, limit_tokens;
static uint8_t *expected;
static Client *clients;
static Session *all;
static int count, synced;
static double origin;
static uint64_t delivered, frames_received, bytes_received;
static uint64_t histogram[64 * 32];
static uint8_t *vector = (uint8_t *)"\0";
static size_t vector_length = 1, expect;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *why, ...) {
    va_list arguments;
    va_start(arguments, why);
    fputs("load: ", stderr);
    vfprintf(stderr, why, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout);
}

/* -- buffers and varints ------------------------------------------------------------------------------------- */

static void reserve(Buffer *b, size_t more) {
    if (b->start && b->start == b->length) b->start = b->length = 0;
    if (b->length + more <= b->capacity) return;
    if (b->start) {
        memmove(b->bytes, b->bytes + b->start, b->length - b->start);
        b->length -= b->start;
        b->start = 0;
    }
    if (b->length + more > b->capacity) {
        b->capacity = (b->length + more) * 2;
        b->bytes = realloc(b->bytes, b->capacity);
        if (!b->bytes) fail("out of memory");
    }
}

static void release(Buffer *b) { /* idle clients should cost nothing */
    if (b->start == b->length && b->capacity > 4096) {
        free(b->bytes);
        memset(b, 0, sizeof *b);
    }
}

static void put(Buffer *b, const void *bytes, size_t n) {
    reserve(b, n);
    memcpy(b->bytes + b->length, bytes, n);
    b->length += n;
}

static void put_varint(Buffer *b, uint64_t n) {
    uint8_t bytes[10];
    int i = 0;
    do {
        bytes[i] = n & 0x7f;
        n >>= 7;
        if (n) bytes[i] |= 0x80;
        i++;
    } while (n);
    put(b, bytes, i);
}

static void put_string(Buffer *b, const void *text, size_t n) {
    put_varint(b, n);
    put(b, text, n);
}

typedef struct {
    const uint8_t *at, *end;
} Reader;

static uint64_t get_varint(Reader *r) {
    uint64_t n = 0;
    int shift = 0;
    for (;;) {
        if (r->at >= r->end || shift > 63) fail("a message ends within a number");
        uint8_t byte = *r->at++;
        n |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return n;
        shift += 7;
    }
}

static Reader get_bytes(Reader *r) {
    uint64_t n = get_varint(r);
    if (n > (uint64_t)(r->end - r->at)) fail("a message ends within a string");
    Reader part = {r->at, r->at + n};
    r->at += n;
    return part;
}

/* -- WebSocket -------------------------------------------------------------------------------------------------- */

static void watch(Client *c, int writing) {
    if (c->writing == writing) return;
    c->writing = writing;
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

static void flush(Client *c) {
    while (c->out.start < c->out.length) {
        ssize_t n = send(c->fd, c->out.bytes + c->out.start, c->out.length - c->out.start, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) {
                watch(c, 1);
                return;
            }
            fail("session %s: send: %s", c->session->name, strerror(errno));
        }
        c->out.start += n;
    }
    c->out.start = c->out.length = 0;
    watch(c, 0);
}

static uint32_t noise = 2463534242u;

static void put_frame(Client *c, int opcode, const uint8_t *payload, size_t n) {
    uint8_t head[14];
    int length = 2;
    head[0] = 0x80 | opcode;
    if (n < 126) {
        head[1] = 0x80 | n;
    } else if (n < 65536) {
        head[1] = 0x80 | 126;
        head[2] = n >> 8;
        head[3] = n;
        length = 4;
    } else {
        head[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) head[2 + i] = (uint64_t)n >> (56 - 8 * i);
        length = 10;
    }
    noise ^= noise << 13, noise ^= noise >> 17, noise ^= noise << 5;
    memcpy(head + length, &noise, 4);
    put(&c->out, head, length + 4);
    reserve(&c->out, n);
    uint8_t *to = c->out.bytes + c->out.length;
    for (size_t i = 0; i < n; i++) to[i] = payload[i] ^ head[length + (i & 3)];
    c->out.length += n;
}

static Buffer scratch;

static Buffer *message(Client *c) {
    scratch.length = scratch.start = 0;
    if (hocuspocus) put_string(&scratch, c->session->name, strlen(c->session->name));
    return &scratch;
}

static void send_message(Client *c) { put_frame(c, 2, scratch.bytes, scratch.length); }

static void upgrade(Client *c) {
    char request[512];
    int n = snprintf(request, sizeof request,
                     "GET %s%s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                     prefix, hocuspocus ? "" : c->session->name, host, port);
    put(&c->out, request, n);
}

static void greet(Client *c) {
    if (hocuspocus) {
        Buffer *b = message(c);
        put(b, "\2\0\0", 3);
        put_string(b, "4.7.0", 5);
        send_message(c);
    }
    Buffer *b = message(c);
    put(b, "\0\0", 2);
    put_string(b, vector, vector_length);
    send_message(c);
}

/* -- what agents write ------------------------------------------------------------------------------------------- */

static void write_token(Session *s, uint64_t token) {
    Buffer update = {0};
    static Buffer kept;
    update = kept;
    update.length = update.start = 0;
    uint64_t clock = token * TOKEN;
    put(&update, "\1\1", 2);
    put_varint(&update, s->author);
    put_varint(&update, clock);
    if (token % per_text) {
        put(&update, "\x84", 1);
        put_varint(&update, s->author);
        put_varint(&update, clock - 1);
    } else {
        char name[32];
        int n = snprintf(name, sizeof name, "t%llu", (unsigned long long)(token / per_text));
        put(&update, "\4\1", 2);
        put_string(&update, name, n);
    }
    put_string(&update, expected + clock, TOKEN);
    put(&update, "\0", 1);
    kept = update;
    Client *c = s->agent;
    Buffer *b = message(c);
    put(b, "\0\2", 2);
    put_string(b, update.bytes, update.length);
    send_message(c);
    if (s->sent_at) s->sent_at[token] = now() - origin;
}

/* -- what viewers receive ---------------------------------------------------------------------------------------- */

static void note_latency(double latency) {
    uint64_t micros = latency * 1e6;
    int exponent = micros < 32 ? 0 : 59 - __builtin_clzll(micros);
    histogram[exponent * 32 + (exponent ? (micros >> (exponent - 1)) - 32 + 0 : micros)]++;
}

static double percentile(double share) {
    uint64_t total = 0, seen = 0;
    for (size_t i = 0; i < sizeof histogram / sizeof *histogram; i++) total += histogram[i];
    for (size_t i = 0; i < sizeof histogram / sizeof *histogram; i++) {
        seen += histogram[i];
        if (total && seen >= share * total) {
            uint64_t exponent = i / 32, low = exponent ? ((i % 32) + 32) << (exponent - 1) : i;
            return low / 1000.0;
        }
    }
    return 0;
}

static void advance(Client *c, uint64_t clock) {
    Session *s = c->session;
    if (s->sent_at) {
        float t = now() - origin;
        for (uint64_t token = c->next / TOKEN; token < clock / TOKEN; token++) note_latency(t - s->sent_at[token]);
    }
    delivered += clock / TOKEN - c->next / TOKEN;
    c->next = clock;
}

static void skip_any(Reader *r) {
    if (r->at >= r->end) fail("an update ends early");
    uint64_t n;
    switch (*r->at++) {
    case 119: case 116: get_bytes(r); break;                       /* string, bytes */
    case 125: get_varint(r); break;                                /* integer: as many bytes */
    case 124: r->at += 4; break;                                   /* float32 */
    case 123: case 122: r->at += 8; break;                         /* float64, bigint */
    case 118: for (n = get_varint(r); n--; skip_any(r)) get_bytes(r); break; /* object */
    case 117: for (n = get_varint(r); n--;) skip_any(r); break;    /* array */
    default: break;                                                /* booleans, null, undefined */
    }
}

static uint64_t skip_content(Reader *r, int kind) {
    uint64_t n, i, type;
    switch (kind) {
    case 1: return get_varint(r);                                  /* deleted */
    case 2: for (n = i = get_varint(r); i--;) get_bytes(r); return n; /* JSON */
    case 6: get_bytes(r); get_bytes(r); return 1;                  /* format */
    case 7: type = get_varint(r); if (type == 3 || type == 5) get_bytes(r); return 1; /* type */
    case 8: for (n = i = get_varint(r); i--;) skip_any(r); return n; /* any */
    case 9: get_bytes(r); skip_any(r); return 1;                   /* document */
    default: get_bytes(r); return 1;                               /* binary, embed */
    }
}

static void read_update(Client *c, Reader r) {
    uint64_t authors = get_varint(&r);
    while (authors--) {
        uint64_t structs = get_varint(&r), author = get_varint(&r), clock = get_varint(&r);
        int agents = author == c->session->author; /* servers may write too */
        while (structs--) {
            if (r.at >= r.end) fail("an update ends early");
            uint8_t info = *r.at++, kind = info & 0x1f;
            if (kind == 0 || kind == 10) { /* GC, Skip */
                if (agents) fail("session %s: no text at %llu", c->session->name, (unsigned long long)clock);
                clock += get_varint(&r);
                continue;
            }
            if (info & 0x80) get_varint(&r), get_varint(&r);
            if (info & 0x40) get_varint(&r), get_varint(&r);
            if (!(info & 0xc0)) {
                if (get_varint(&r)) get_bytes(&r);
                else get_varint(&r), get_varint(&r);
                if (info & 0x20) get_bytes(&r);
            }
            if (!agents) {
                if (kind == 4) get_bytes(&r); /* its length is not needed: nobody's clocks but the agent's are */
                else skip_content(&r, kind);
                continue;
            }
            if (kind != 4) fail("session %s: no text at %llu", c->session->name, (unsigned long long)clock);
            Reader text = get_bytes(&r);
            uint64_t n = text.end - text.at;
            if (clock > c->next) fail("session %s: from %llu to %llu nothing came", c->session->name, (unsigned long long)c->next, (unsigned long long)clock);
            if (clock + n > c->session->sent * TOKEN) fail("session %s: more than was sent", c->session->name);
            if (memcmp(text.at, expected + clock, n)) fail("session %s: a wrong token at %llu", c->session->name, (unsigned long long)clock);
            clock += n;
            if (clock > c->next) advance(c, clock);
        }
    }
    for (uint64_t authors = get_varint(&r); authors--;) {
        get_varint(&r);
        for (uint64_t ranges = get_varint(&r); ranges--; get_varint(&r)) get_varint(&r);
    }
    if (r.at != r.end) fail("session %s: more behind an update", c->session->name);
}

static void dump(Reader r) { /* each update behind its length */
    FILE *file = fopen(dump_file, "ab");
    uint32_t n = r.end - r.at;
    if (!file || fwrite(&n, 4, 1, file) != 1 || fwrite(r.at, 1, n, file) != n || fclose(file)) fail("cannot write %s", dump_file);
}

static void heard_sync(Client *c, Reader *r, int joining) {
    uint64_t step = get_varint(r);
    Reader body = get_bytes(r);
    if (step == 0) {
        if (c->greeted) return;
        c->greeted = 1;
        Buffer *b = message(c);
        put(b, "\0\1\2\0\0", 5);
        send_message(c);
        return;
    }
    if (joining) {
        if (c->synced) return;
        c->received += body.end - body.at;
        if (dump_file && c == clients) dump(body);
        if (c->received < expect) return; /* some answer with nothing, and send it as an update when they have it */
    }
    if (!c->synced) {
        c->synced = 1;
        c->done = now();
        synced++;
    }
    if (!joining && !c->agent) read_update(c, body);
}

static void heard(Client *c, const uint8_t *payload, size_t n, int joining) {
    Reader r = {payload, payload + n};
    if (hocuspocus) get_bytes(&r);
    while (r.at < r.end) {
        uint64_t kind = get_varint(&r);
        if (kind == 0 || (kind == 4 && hocuspocus)) heard_sync(c, &r, joining);
        else if (kind == 1 || kind == 102) get_bytes(&r);
        else return; /* authenticated, sync status: nothing to be done */
    }
}

static void read_frames(Client *c, int joining) {
    Buffer *b = &c->in;
    if (!c->upgraded) {
        uint8_t *end = memmem(b->bytes + b->start, b->length - b->start, "\r\n\r\n", 4);
        if (!end) return;
        if (memcmp(b->bytes + b->start, "HTTP/1.1 101", 12)) fail("%.*s", (int)(b->length - b->start), b->bytes + b->start);
        b->start = end + 4 - b->bytes;
        c->upgraded = 1;
        greet(c);
    }
    for (;;) {
        size_t have = b->length - b->start;
        uint8_t *f = b->bytes + b->start;
        if (have < 2) break;
        size_t n = f[1] & 0x7f, head = 2;
        if (n == 126) {
            if (have < 4) break;
            n = f[2] << 8 | f[3], head = 4;
        } else if (n == 127) {
            if (have < 10) break;
            n = 0, head = 10;
            for (int i = 2; i < 10; i++) n = n << 8 | f[i];
        }
        if (have < head + n) {
            reserve(b, head + n - have);
            break;
        }
        int opcode = f[0] & 0x0f;
        if (!(f[0] & 0x80)) fail("a fragmented frame");
        b->start += head + n;
        if (opcode == 2) {
            frames_received++;
            bytes_received += n;
            heard(c, f + head, n, joining);
        } else if (opcode == 9) {
            put_frame(c, 10, f + head, n);
        } else if (opcode == 8) {
            fail("session %s was closed with %d %.*s", c->session->name, n > 1 ? f[head] << 8 | f[head + 1] : 0, n > 2 ? (int)n - 2 : 0, f + head + 2);
        }
    }
    if (b->start == b->length) release(b);
}

static void readable(Client *c, int joining) {
    for (;;) {
        reserve(&c->in, CHUNK / 4);
        ssize_t n = recv(c->fd, c->in.bytes + c->in.length, c->in.capacity - c->in.length, 0);
        if (n == 0) fail("session %s: the server hung up", c->session->name);
        if (n < 0) {
            if (errno == EAGAIN) break;
            fail("session %s: %s", c->session->name, strerror(errno));
        }
        int full = (size_t)n == c->in.capacity - c->in.length;
        c->in.length += n;
        read_frames(c, joining);
        if (!full) break;
    }
    if (c->in.start == c->in.length) release(&c->in);
    if (c->out.length > c->out.start) flush(c);
}

/* -- connections ---------------------------------------------------------------------------------------------------- */

static void dial(Client *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &address.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->begun = now();
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) fail("connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    c->writing = 1;
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    upgrade(c);
}

static void turn(int timeout_ms, int joining) {
    struct epoll_event events[256];
    int n = epoll_wait(epoll, events, 256, timeout_ms);
    for (int i = 0; i < n; i++) {
        Client *c = events[i].data.ptr;
        if (events[i].events & EPOLLOUT) flush(c);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c, joining);
    }
}

static void connect_all(int at_once, int joining) {
    double deadline = now() + patience;
    for (int dialled = 0; synced < count;) {
        while (dialled < count && dialled - synced < at_once) dial(&clients[dialled++]);
        turn(10, joining);
        if (now() > deadline) fail("only %d of %d connections were synced in time", synced, count);
    }
}

static void make_sessions(int per_session) {
    count = sessions * per_session;
    clients = calloc(count, sizeof *clients);
    all = calloc(sessions, sizeof *all);
    for (int s = 0; s < sessions; s++) {
        snprintf(all[s].name, sizeof all[s].name, "bench-%d", s);
        all[s].author = 0x70000000u + s;
        all[s].viewers = calloc(per_session, sizeof(Client *));
        for (int i = 0; i < per_session; i++) {
            Client *c = &clients[s * per_session + i];
            c->session = &all[s];
            c->agent = i == 0;
            if (i == 0) all[s].agent = c;
            else all[s].viewers[i - 1] = c;
        }
    }
}

static void fill_expected(void) {
    expected = malloc(max_tokens * TOKEN);
    for (uint64_t token = 0; token < max_tokens; token++) {
        uint64_t n = token * 2654435761u % 11881376; /* 26^5 words, in no order */
        for (int i = 0; i < TOKEN; i++, n /= 26) expected[token * TOKEN + i] = 'a' + n % 26;
    }
}

static void measure_slowest(Session *s, int per_session) {
    uint64_t least = s->sent;
    for (int i = 0; i < per_session - 1; i++)
        if (s->viewers[i]->next / TOKEN < least) least = s->viewers[i]->next / TOKEN;
    s->slowest = least;
}

/* -- the modes ------------------------------------------------------------------------------------------------------- */

static void stream(int first, int writers, int per_session, double until) {
    static double started;
    if (!started) {
        started = now();
        for (int s = 0; s < sessions; s++) all[s].first_due = started + (rate ? (double)s / sessions / rate : 0);
    }
    while (now() < until) {
        double t = now();
        for (int i = 0; i < writers; i++) {
            Session *s = &all[(first + i) % sessions];
            uint64_t goal;
            if (rate) {
                goal = t < s->first_due ? 0 : (t - s->first_due) * rate;
            } else {
                if (s->agent->out.length - s->agent->out.start > CHUNK) continue;
                measure_slowest(s, per_session);
                goal = s->slowest + window;
                if (goal > s->sent + 512) goal = s->sent + 512;
            }
            if (goal > max_tokens) goal = max_tokens;
            if (s->sent < goal) {
                while (s->sent < goal) write_token(s, s->sent++);
                flush(s->agent);
            }
        }
        if (limit_tokens) {
            static uint64_t told;
            if (progress && all[0].slowest >= told + progress) {
                told += progress;
                say("{\"event\": \"progress\", \"tokens\": %llu, \"at\": %.4f}", (unsigned long long)told, now());
            }
            int all_done = 1;
            for (int i = 0; i < writers; i++) all_done &= all[i].slowest >= max_tokens;
            if (all_done) return;
        }
        turn(rate ? 1 : 0, 0);
    }
}

static void settle(int per_session) {
    double deadline = now() + patience;
    for (;;) {
        int behind = 0;
        for (int s = 0; s < sessions; s++) {
            measure_slowest(&all[s], per_session);
            behind += all[s].slowest < all[s].sent;
        }
        if (!behind) return;
        if (now() > deadline) fail("in %d sessions tokens did not arrive", behind);
        turn(10, 0);
    }
}

static void await_line(void) {
    struct epoll_event events[64];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        int n = epoll_wait(epoll, events, 64, 1000);
        for (int i = 0; i < n; i++) {
            Client *c = events[i].data.ptr;
            if (!c) {
                char line[64];
                if (read(0, line, sizeof line) <= 0) exit(0);
                epoll_ctl(epoll, EPOLL_CTL_DEL, 0, NULL);
                return;
            }
            if (events[i].events & EPOLLOUT) flush(c);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c, 0);
        }
    }
}

static void fan_out(int writers, int per_session) {
    if (rate)
        for (int s = 0; s < writers; s++) all[s].sent_at = calloc(rate * (warmup + seconds) + 1000, sizeof(float));
    connect_all(200, 0);
    say("{\"event\": \"connected\", \"clients\": %d}", count);
    origin = now();
    stream(0, writers, per_session, now() + warmup);
    memset(histogram, 0, sizeof histogram);
    uint64_t before = delivered, frames = frames_received, bytes = bytes_received;
    double begun = now(), used = cpu();
    say("{\"event\": \"begin\"}");
    stream(0, writers, per_session, begun + seconds);
    double took = now() - begun;
    used = cpu() - used;
    uint64_t after = delivered, tokens = 0;
    frames = frames_received - frames, bytes = bytes_received - bytes;
    say("{\"event\": \"end\"}");
    settle(per_session);
    for (int s = 0; s < sessions; s++) tokens += all[s].sent;
    say("{\"event\": \"result\", \"deliveries\": %llu, \"seconds\": %.4f, \"per_s\": %.0f, \"frames\": %llu, "
        "\"bytes\": %llu, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"p999_ms\": %.3f, \"generator_cpu\": %.3f, \"tokens\": %llu}",
        (unsigned long long)(after - before), took, (after - before) / took, (unsigned long long)frames,
        (unsigned long long)bytes, percentile(.5), percentile(.99), percentile(.999), used / took, (unsigned long long)tokens);
}

static int by_time(const void *a, const void *b) {
    const Client *x = a, *y = b;
    double difference = (x->done - x->begun) - (y->done - y->begun);
    return difference < 0 ? -1 : difference > 0;
}

static void join(void) {
    if (vector_file) {
        FILE *file = fopen(vector_file, "rb");
        vector = malloc(1 << 24);
        if (!file || !(vector_length = fread(vector, 1, 1 << 24, file))) fail("cannot read %s", vector_file);
        fclose(file);
    }
    double begun = now();
    connect_all(joins, 1);
    double took = now() - begun;
    qsort(clients, count, sizeof *clients, by_time);
    Client *middle = &clients[count / 2], *late = &clients[count * 99 / 100];
    say("{\"event\": \"result\", \"joins\": %d, \"seconds\": %.4f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"bytes\": %zu}", count,
        took, (middle->done - middle->begun) * 1000, (late->done - late->begun) * 1000, middle->received);
}

/* A relay without a document: what it is sent in a session goes to the others there, all that a read brought in one
 * write. No other server can be faster; how much of it this program takes in is its own limit. */

typedef struct Peer {
    int fd, upgraded, session;
    struct Peer *next;
    Buffer in, out;
} Peer;

static Peer *rooms[65536];

static void relay_flush(Peer *p) {
    while (p->out.start < p->out.length) {
        ssize_t n = send(p->fd, p->out.bytes + p->out.start, p->out.length - p->out.start, MSG_NOSIGNAL);
        if (n < 0) break;
        p->out.start += n;
    }
    struct epoll_event event = {.events = EPOLLIN | (p->out.start < p->out.length ? EPOLLOUT : 0), .data.ptr = p};
    if (p->out.start == p->out.length) p->out.start = p->out.length = 0;
    epoll_ctl(epoll, EPOLL_CTL_MOD, p->fd, &event);
}

static void relay_upgrade(Peer *p) {
    p->in.bytes[p->in.length] = 0;
    char *path = strstr((char *)p->in.bytes, "bench-");
    p->session = path ? atoi(path + 6) : 0;
    p->next = rooms[p->session];
    rooms[p->session] = p;
    p->upgraded = 1;
    p->in.length = 0;
    const char *answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    put(&p->out, answer, strlen(answer));
    put(&p->out, "\x82\x05\0\1\2\0\0", 7);
    relay_flush(p);
}

static void relay_read(Peer *p) {
    reserve(&p->in, CHUNK);
    ssize_t n = recv(p->fd, p->in.bytes + p->in.length, CHUNK, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return;
        for (Peer **each = &rooms[p->session]; *each; each = &(*each)->next)
            if (*each == p) {
                *each = p->next;
                break;
            }
        close(p->fd);
        return;
    }
    p->in.length += n;
    if (!p->upgraded) {
        if (memmem(p->in.bytes, p->in.length, "\r\n\r\n", 4)) relay_upgrade(p);
        return;
    }
    static Buffer batch;
    batch.length = batch.start = 0;
    while (p->in.length - p->in.start >= 6) {
        uint8_t *f = p->in.bytes + p->in.start;
        size_t length = f[1] & 0x7f; /* only short frames are sent here */
        if (p->in.length - p->in.start < 6 + length) break;
        for (size_t i = 0; i < length; i++) f[6 + i] ^= f[2 + (i & 3)];
        p->in.start += 6 + length;
        if (f[6] != 0 || f[7] != 2) continue;
        uint8_t head[2] = {0x82, length};
        put(&batch, head, 2);
        put(&batch, f + 6, length);
    }
    if (batch.length)
        for (Peer *other = rooms[p->session]; other; other = other->next)
            if (other != p) {
                put(&other->out, batch.bytes, batch.length);
                relay_flush(other);
            }
}

static void relay(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof address;
    inet_pton(AF_INET, host, &address.sin_addr);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) fail("listen: %s", strerror(errno));
    getsockname(listener, (struct sockaddr *)&address, &length);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    say("{\"event\": \"listening\", \"port\": %d}", ntohs(address.sin_port));
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            Peer *p = events[i].data.ptr;
            if (!p) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                p = calloc(1, sizeof *p);
                p->fd = fd;
                struct epoll_event joined = {.events = EPOLLIN, .data.ptr = p};
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &joined);
                continue;
            }
            if (events[i].events & EPOLLOUT) relay_flush(p);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) relay_read(p);
        }
    }
}

static double number(const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text) fail("not a number: %s", text);
    return value;
}

static void option(const char *name, const char *value) {
    if (!strcmp(name, "--port")) port = number(value);
    else if (!strcmp(name, "--host")) host = value;
    else if (!strcmp(name, "--prefix")) prefix = value;
    else if (!strcmp(name, "--dialect")) dialect = value;
    else if (!strcmp(name, "--sessions")) sessions = number(value);
    else if (!strcmp(name, "--viewers")) viewers = number(value);
    else if (!strcmp(name, "--joins")) joins = number(value);
    else if (!strcmp(name, "--active")) active = number(value);
    else if (!strcmp(name, "--rate")) rate = number(value);
    else if (!strcmp(name, "--seconds")) seconds = number(value);
    else if (!strcmp(name, "--warmup")) warmup = number(value);
    else if (!strcmp(name, "--window")) window = number(value);
    else if (!strcmp(name, "--patience")) patience = number(value);
    else if (!strcmp(name, "--per-text")) per_text = number(value);
    else if (!strcmp(name, "--tokens")) max_tokens = number(value), limit_tokens = 1;
    else if (!strcmp(name, "--progress")) progress = number(value);
    else if (!strcmp(name, "--vector")) vector_file = value;
    else if (!strcmp(name, "--expect")) expect = number(value);
    else if (!strcmp(name, "--dump")) dump_file = value;
    else fail("unknown option %s", name);
}

int main(int arguments, char **argument) {
    if (arguments < 2 || arguments % 2) fail("usage: load MODE [--OPTION VALUE]...");
    for (int i = 2; i < arguments; i += 2) option(argument[i], argument[i + 1]);
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    epoll = epoll_create1(0);
    hocuspocus = !strcmp(dialect, "hocuspocus");
    if (!window) window = sessions < 100 ? 20000 / sessions : 200;
    const char *mode = argument[1];
    if (!strcmp(mode, "relay")) {
        relay();
    } else if (!strcmp(mode, "fan-out")) {
        fill_expected();
        make_sessions(1 + viewers);
        fan_out(sessions, 1 + viewers);
    } else if (!strcmp(mode, "idle")) {
        fill_expected();
        make_sessions(1);
        for (int i = 0; i < count; i++) clients[i].agent = 1;
        connect_all(200, 0);
        say("{\"event\": \"connected\", \"clients\": %d}", count);
        await_line();
        say("{\"event\": \"begin\"}");
        origin = now();
        stream(0, active, 1, now() + seconds);
        say("{\"event\": \"end\"}");
    } else if (!strcmp(mode, "join")) {
        sessions = 1;
        make_sessions(joins);
        join();
    } else {
        fail("unknown mode %s", mode);
    }
    return 0;
}
