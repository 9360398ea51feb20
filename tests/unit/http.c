/* http: transfers against small servers of this program's own, which record what was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http.h"
#include "http_head.h"
#include "log.h"
#include "test_clock.h"

#define FILE_SIZE 100000u

/* -- a server: one thread a connection -- */

struct seen {
	char method[8];
	char path[256];
	char head[4096];
	char body[4096];
	size_t body_len;
	unsigned connection;
	int64_t at_ms;
};

struct server;
struct peer {
	struct server *server;
	int fd;
	unsigned number;
	pthread_t thread;
};

/* Answers; false closes the connection. `n` counts the requests from 1. */
typedef bool (*handler)(struct peer *p, const struct seen *s, unsigned n);

#define PEERS_MAX 64
#define SEEN_MAX 64

struct server {
	int fd, quit[2];
	unsigned port;
	char url[64];
	handler answer;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct peer peers[PEERS_MAX];
	unsigned n_peers;
	struct seen seen[SEEN_MAX];
	unsigned n_seen;
};

static void say(struct peer *p, const void *data, size_t len)
{
	while (len > 0) {
		ssize_t n = send(p->fd, data, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		data = (const char *)data + n;
		len -= (size_t)n;
	}
}

static void sayf(struct peer *p, const char *fmt, ...) PRINTF(2, 3);
static void sayf(struct peer *p, const char *fmt, ...)
{
	char text[8192];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	say(p, text, (size_t)n);
}

/* Holds the answer back until the client leaves or the test ends. */
static void stall(struct peer *p)
{
	struct pollfd fds[] = {{.fd = p->fd, .events = POLLIN}, {.fd = p->server->quit[0], .events = POLLIN}};

	poll(fds, 2, 30000);
}

static bool read_request(struct peer *p, struct seen *s)
{
	const char *length;
	size_t got = 0, want;
	char *end = NULL;

	while (!end) {
		ssize_t n = recv(p->fd, s->head + got, sizeof(s->head) - 1 - got, 0);

		if (n <= 0)
			return false;
		got += (size_t)n;
		s->head[got] = '\0';
		end = strstr(s->head, "\r\n\r\n");
	}
	s->body_len = got - (size_t)(end + 4 - s->head);
	memcpy(s->body, end + 4, s->body_len);
	end[2] = '\0';
	length = strcasestr(s->head, "\r\nContent-Length:");
	want = length ? strtoul(length + 17, NULL, 10) : 0;
	while (s->body_len < want) {
		char rest[4096]; /* of a body that is too long to be kept */
		size_t room = sizeof(s->body) - MIN(s->body_len, sizeof(s->body));
		ssize_t n = recv(p->fd, room ? s->body + s->body_len : rest, room ? room : sizeof(rest), 0);

		if (n <= 0)
			return false;
		s->body_len += (size_t)n;
	}
	return sscanf(s->head, "%7s %255s", s->method, s->path) == 2;
}

static void *peer_thread(void *arg)
{
	struct peer *p = arg;
	struct server *sv = p->server;
	struct seen *s = calloc(1, sizeof(*s));
	bool open = true;

	while (open && read_request(p, s)) {
		unsigned n;
		handler answer;

		s->connection = p->number;
		s->at_ms = util_now_ms();
		pthread_mutex_lock(&sv->lock);
		n = ++sv->n_seen;
		answer = sv->answer;
		if (n <= SEEN_MAX)
			sv->seen[n - 1] = *s;
		pthread_cond_broadcast(&sv->changed);
		pthread_mutex_unlock(&sv->lock);
		open = answer(p, s, n);
	}
	free(s);
	shutdown(p->fd, SHUT_RDWR);
	return NULL;
}

static void *accept_thread(void *arg)
{
	struct server *sv = arg;

	for (;;) {
		struct pollfd fds[] = {{.fd = sv->fd, .events = POLLIN}, {.fd = sv->quit[0],
		                                                          .events = POLLIN}};
		struct peer *p = &sv->peers[sv->n_peers];

		poll(fds, 2, -1);
		if (fds[1].revents || sv->n_peers == PEERS_MAX)
			return NULL;
		*p = (struct peer){.server = sv, .fd = accept4(sv->fd, NULL, NULL, SOCK_CLOEXEC)};
		if (p->fd < 0)
			continue;
		pthread_mutex_lock(&sv->lock);
		p->number = ++sv->n_peers;
		pthread_mutex_unlock(&sv->lock);
		pthread_create(&p->thread, NULL, peer_thread, p);
	}
}

static struct server *server_new(handler answer)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	struct server *sv = calloc(1, sizeof(*sv));
	socklen_t len = sizeof(at);

	assert_non_null(sv);
	sv->answer = answer;
	pthread_mutex_init(&sv->lock, NULL);
	pthread_cond_init(&sv->changed, NULL);
	assert_int_equal(pipe(sv->quit), 0);
	sv->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(sv->fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(sv->fd, 16), 0);
	assert_int_equal(getsockname(sv->fd, (struct sockaddr *)&at, &len), 0);
	sv->port = ntohs(at.sin_port);
	snprintf(sv->url, sizeof(sv->url), "http://127.0.0.1:%u", sv->port);
	assert_int_equal(pthread_create(&sv->thread, NULL, accept_thread, sv), 0);
	return sv;
}

static void server_free(struct server *sv)
{
	close(sv->quit[1]);
	pthread_join(sv->thread, NULL);
	for (unsigned i = 0; i < sv->n_peers; i++) {
		shutdown(sv->peers[i].fd, SHUT_RDWR);
		pthread_join(sv->peers[i].thread, NULL);
		close(sv->peers[i].fd);
	}
	close(sv->quit[0]);
	close(sv->fd);
	pthread_cond_destroy(&sv->changed);
	pthread_mutex_destroy(&sv->lock);
	free(sv);
}

static unsigned seen_count(struct server *sv)
{
	unsigned n;

	pthread_mutex_lock(&sv->lock);
	n = sv->n_seen;
	pthread_mutex_unlock(&sv->lock);
	return n;
}

static void wait_seen(struct server *sv, unsigned n)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	pthread_mutex_lock(&sv->lock);
	while (sv->n_seen < n)
		assert_int_equal(pthread_cond_timedwait(&sv->changed, &sv->lock, &until), 0);
	pthread_mutex_unlock(&sv->lock);
}

/* -- what every test uses -- */

struct world {
	struct server *sv;
	struct auth *auth;
	struct http *http;
	struct http_opts opts;
};

static void world_start(struct world *w, handler answer)
{
	w->sv = server_new(answer);
	assert_int_equal(auth_new(w->sv->url, "/nonexistent", &w->auth), 0);
	assert_int_equal(http_new(w->auth, &w->opts, &w->http), 0);
}

static void world_end(struct world *w)
{
	assert_int_equal(http_in_flight(w->http), 0);
	http_free(w->http);
	auth_free(w->auth);
	server_free(w->sv);
}

static uint8_t file_byte(size_t i)
{
	return (uint8_t)(i * 31 + i / 251);
}

static void say_file(struct peer *p, size_t from, size_t to)
{
	char *data = malloc(to - from + 1);

	for (size_t i = from; i < to; i++)
		data[i - from] = (char)file_byte(i);
	say(p, data, to - from);
	free(data);
}

struct sunk {
	size_t off, len;
	bool wrong;
	int fail_with;
};

static int sink(void *arg, const void *data, size_t len)
{
	struct sunk *s = arg;

	for (size_t i = 0; i < len; i++)
		s->wrong |= ((const uint8_t *)data)[i] != file_byte(s->off + s->len + i);
	s->len += len;
	return s->fail_with;
}

static struct http_req get_req(char *url, size_t size, struct world *w, const char *path)
{
	snprintf(url, size, "%s%s", w->sv->url, path);
	return (struct http_req){.method = "GET", .url = url, .idempotent = true};
}

static bool has_header(const struct seen *s, const char *line)
{
	return strcasestr(s->head, line) != NULL;
}

/* -- tests -- */

static bool answer_hello(struct peer *p, const struct seen *s, unsigned n)
{
	sayf(p, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: application/json\r\nETag: W/\"abc\"\r\n"
	        "X-Request-Id: r%u\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nhello", n);
	return true;
}

static void test_connections_are_kept(void **state)
{
	struct world w = {0};
	char url[128];

	world_start(&w, answer_hello);
	for (int i = 0; i < 3; i++) {
		struct http_req req = get_req(url, sizeof(url), &w, "/a?q=1");
		AUTO_HTTP_RESP resp = {0};

		assert_int_equal(http_perform(w.http, &req, &resp), 0);
		assert_int_equal(resp.status, 200);
		assert_string_equal(resp.body.data, "hello");
		assert_string_equal(resp.etag, "abc");
		assert_string_equal(resp.raw_etag, "W/\"abc\"");
		assert_true(resp.is_json);
		assert_int_equal(resp.content_length, 5);
		assert_int_equal(resp.date_s, 784111777);
	}
	assert_int_equal(seen_count(w.sv), 3);
	assert_int_equal(w.sv->seen[2].connection, 1);
	assert_string_equal(w.sv->seen[0].path, "/a?q=1");
	assert_true(has_header(&w.sv->seen[0], "Accept-Encoding: identity\r\n"));
	assert_true(has_header(&w.sv->seen[0], "User-Agent: hugfs/"));
	assert_false(has_header(&w.sv->seen[0], "Cookie:"));
	world_end(&w);
}

/* An idle connection serves the other lane rather than a new one. */
static void test_an_idle_connection_serves_all_lanes(void **state)
{
	struct world w = {0};
	char url[128];

	world_start(&w, answer_hello);
	for (int i = 0; i < 4; i++) {
		struct http_req req = get_req(url, sizeof(url), &w, "/");
		AUTO_HTTP_RESP resp = {0};

		req.lane = i % 2 ? HTTP_DATA : HTTP_API;
		assert_int_equal(http_perform(w.http, &req, &resp), 0);
		assert_int_equal(w.sv->seen[i].connection, 1);
	}
	world_end(&w);
}

/* Before the machine slept they were good; nobody says that they are not any more. */
static void test_connections_do_not_outlive_a_sleep(void **state)
{
	struct world w = {0};
	char url[128];

	world_start(&w, answer_hello);
	for (int i = 0; i < 4; i++) {
		struct http_req req = get_req(url, sizeof(url), &w, "/");
		AUTO_HTTP_RESP resp = {0};

		if (i == 2)
			atomic_fetch_add(&slept_ms, 10000);
		assert_int_equal(http_perform(w.http, &req, &resp), 0);
	}
	assert_int_equal(w.sv->seen[1].connection, 1);
	assert_int_equal(w.sv->seen[2].connection, 2);
	assert_int_equal(w.sv->seen[3].connection, 2);
	world_end(&w);
}

static bool answer_nothing_once(struct peer *p, const struct seen *s, unsigned n)
{
	if (n > 1)
		return answer_hello(p, s, n);
	stall(p);
	return false;
}

static void *perform_thread(void *arg)
{
	struct world *w = arg;
	AUTO_HTTP_RESP resp = {0};
	char url[128];
	struct http_req req = get_req(url, sizeof(url), w, "/");

	req.deadline_s = 60;
	return http_perform(w->http, &req, &resp) == 0 && resp.status == 200 ? w : NULL;
}

/* A request that slept along is sent again at once, and its deadline has not passed. */
static void test_a_request_goes_on_after_a_sleep(void **state)
{
	struct world w = {0};
	pthread_t thread;
	int64_t began;
	void *good;

	world_start(&w, answer_nothing_once);
	assert_int_equal(pthread_create(&thread, NULL, perform_thread, &w), 0);
	wait_seen(w.sv, 1);
	atomic_fetch_add(&slept_ms, 3600000);
	began = util_now_ms();
	pthread_join(thread, &good);
	assert_ptr_equal(good, &w);
	assert_true(util_now_ms() - began < 4000);
	assert_int_equal(w.sv->seen[1].connection, 2);
	world_end(&w);
}

/* Readers wait for it: data that does not come is asked for on another connection after 5 s, not after 20. */
static void test_stalled_data_is_asked_for_again(void **state)
{
	struct world w = {0};
	AUTO_HTTP_RESP resp = {0};
	int64_t began = util_now_ms();
	char url[128];

	world_start(&w, answer_nothing_once);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.lane = HTTP_DATA;
	req.deadline_s = 60;
	assert_int_equal(http_perform(w.http, &req, &resp), 0);
	assert_in_range(util_now_ms() - began, 4500, 9000);
	assert_int_equal(w.sv->seen[1].connection, 2);
	world_end(&w);
}

/* A large body that was taken and not answered is sent again at half the deadline, not given up at its end. */
static void test_an_unanswered_upload_is_sent_again(void **state)
{
	struct world w = {0};
	AUTO_HTTP_RESP resp = {0};
	int64_t began = util_now_ms();
	AUTO_FREE char *body = calloc(1, FILE_SIZE);
	char url[128];

	world_start(&w, answer_nothing_once);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.method = "PUT";
	req.body = body;
	req.body_len = FILE_SIZE;
	req.deadline_s = 12;
	assert_int_equal(http_perform(w.http, &req, &resp), 0);
	assert_in_range(util_now_ms() - began, 5500, 11000);
	assert_int_equal(seen_count(w.sv), 2);
	world_end(&w);
}

static bool answer_503_once(struct peer *p, const struct seen *s, unsigned n)
{
	if (n == 1)
		sayf(p, "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
	else
		return answer_hello(p, s, n);
	return true;
}

static ssize_t source(void *arg, void *data, size_t len, uint64_t off)
{
	size_t n = MIN(len, 7);

	for (size_t i = 0; i < n; i++)
		((char *)data)[i] = (char)('a' + (off + i) % 26);
	return (ssize_t)n;
}

static void test_503_is_tried_again(void **state)
{
	struct world w = {0};
	AUTO_HTTP_RESP resp = {0};
	char url[128];

	world_start(&w, answer_503_once);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.method = "PUT";
	req.body_source = source;
	req.body_len = 100;
	assert_int_equal(http_perform(w.http, &req, &resp), 0);
	assert_int_equal(resp.status, 200);
	assert_int_equal(seen_count(w.sv), 2);
	for (int i = 0; i < 2; i++) {
		assert_string_equal(w.sv->seen[i].method, "PUT");
		assert_int_equal(w.sv->seen[i].body_len, 100);
		assert_int_equal(w.sv->seen[i].body[99], 'a' + 99 % 26);
		assert_true(has_header(&w.sv->seen[i], "Content-Length: 100\r\n"));
		assert_false(has_header(&w.sv->seen[i], "Expect:"));
		assert_false(has_header(&w.sv->seen[i], "Transfer-Encoding:"));
		assert_false(has_header(&w.sv->seen[i], "Content-Type:"));
	}
	world_end(&w);
}

static void test_a_post_goes_out_once(void **state)
{
	struct world w = {0};
	AUTO_HTTP_RESP resp = {0};
	char url[128];

	world_start(&w, answer_503_once);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.method = "POST";
	req.body = "x=1";
	req.body_len = 3;
	req.idempotent = false;
	assert_int_equal(http_perform(w.http, &req, &resp), 0);
	assert_int_equal(resp.status, 503);
	assert_string_equal(resp.body.data, "busy");
	assert_int_equal(seen_count(w.sv), 1);
	assert_int_equal(w.sv->seen[0].body_len, 3);
	world_end(&w);
}

static bool answer_posts_never(struct peer *p, const struct seen *s, unsigned n)
{
	return strcmp(s->method, "POST") == 0 ? false : answer_hello(p, s, n);
}

/* libcurl would send it again on its own, had it used the kept connection. */
static void test_a_lost_answer_is_told(void **state)
{
	struct world w = {0};
	char url[128];

	world_start(&w, answer_posts_never);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	AUTO_HTTP_RESP first = {0};
	AUTO_HTTP_RESP second = {0};
	assert_int_equal(http_perform(w.http, &req, &first), 0);
	req.method = "POST";
	req.idempotent = false;
	assert_int_equal(http_perform(w.http, &req, &second), -EIO);
	assert_int_equal(seen_count(w.sv), 2);
	world_end(&w);
}

/* Half of what is asked for, then the connection ends. */
static bool answer_half(struct peer *p, const struct seen *s, unsigned n)
{
	const char *range = strcasestr(s->head, "\r\nRange: bytes=");
	size_t from = 0, to = 0;

	assert_non_null(range);
	assert_int_equal(sscanf(range + 15, "%zu-%zu", &from, &to), 2);
	sayf(p, "HTTP/1.1 206 Part\r\nContent-Range: bytes %zu-%zu/%u\r\nContent-Length: %zu\r\n\r\n", from,
	     to, FILE_SIZE,
	     to - from + 1);
	if (n > 3) {
		say_file(p, from, to + 1);
		return true;
	}
	say_file(p, from, from + (to - from) / 2);
	return false;
}

static void test_a_cut_body_goes_on_where_it_stopped(void **state)
{
	struct world w = {0};
	struct sunk sunk = {.off = 1000};
	AUTO_HTTP_RESP resp = {0};
	char url[128], range[64];

	world_start(&w, answer_half);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.lane = HTTP_DATA;
	req.range_off = 1000;
	req.range_len = 64000;
	req.range_total = FILE_SIZE;
	req.sink = sink;
	req.sink_arg = &sunk;
	assert_int_equal(http_perform(w.http, &req, &resp), 0);
	assert_int_equal(sunk.len, 64000);
	assert_false(sunk.wrong);
	assert_int_equal(seen_count(w.sv), 4);
	assert_true(has_header(&w.sv->seen[0], "Range: bytes=1000-64999\r\n"));
	snprintf(range, sizeof(range), "Range: bytes=%d-64999\r\n", 1000 + 63999 / 2);
	assert_true(has_header(&w.sv->seen[1], range));
	world_end(&w);
}

static bool answer_whole(struct peer *p, const struct seen *s, unsigned n)
{
	sayf(p, "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", FILE_SIZE);
	say_file(p, 0, FILE_SIZE);
	return true;
}

static void test_a_200_is_cut_to_the_range(void **state)
{
	struct world w = {0};
	struct sunk sunk = {.off = 70000};
	AUTO_HTTP_RESP resp = {0};
	AUTO_HTTP_RESP other = {0};
	char url[128];

	world_start(&w, answer_whole);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.range_off = 70000;
	req.range_len = 5000;
	req.range_total = FILE_SIZE;
	req.sink = sink;
	req.sink_arg = &sunk;
	assert_int_equal(http_perform(w.http, &req, &resp), 0);
	assert_int_equal(sunk.len, 5000);
	assert_false(sunk.wrong);
	/* Another size than ours is another file. */
	req.range_total = FILE_SIZE + 1;
	assert_int_equal(http_perform(w.http, &req, &other), -EIO);
	assert_int_equal(sunk.len, 5000);
	/* And gigabytes are not read for nothing. */
	req.range_off = (uint64_t)1 << 30;
	req.range_total = 0;
	assert_int_equal(http_perform(w.http, &req, &other), -EIO);
	assert_int_equal(sunk.len, 5000);
	assert_int_equal(seen_count(w.sv), 3);
	world_end(&w);
}

static bool answer_wrong_range(struct peer *p, const struct seen *s, unsigned n)
{
	static const char *const ranges[] = {"bytes 11-19/100", "bytes 10-20/100", "bytes 10-19/99",
	                                     "bytes 10-19/*", "",
	                                     "bytes 10-9/100", "lines 10-19/100"};

	sayf(p, "HTTP/1.1 206 Part\r\nContent-Length: 10\r\nContent-Range: %s\r\n\r\n0123456789",
	     ranges[n - 1]);
	return true;
}

static void test_content_range_is_checked(void **state)
{
	struct world w = {0};
	struct sunk sunk = {0};
	char url[128];

	world_start(&w, answer_wrong_range);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.range_off = 10;
	req.range_len = 10;
	req.range_total = 100;
	req.sink = sink;
	req.sink_arg = &sunk;
	for (unsigned i = 1; i <= 7; i++) {
		AUTO_HTTP_RESP resp = {0};

		assert_int_equal(http_perform(w.http, &req, &resp), -EIO);
		assert_int_equal(sunk.len, 0);
		assert_int_equal(seen_count(w.sv), i);
	}
	world_end(&w);
}

static void test_the_sinks_error_ends_it(void **state)
{
	struct world w = {0};
	struct sunk sunk = {.fail_with = -ENOSPC};
	AUTO_HTTP_RESP resp = {0};
	char url[128];

	world_start(&w, answer_whole);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.sink = sink;
	req.sink_arg = &sunk;
	assert_int_equal(http_perform(w.http, &req, &resp), -ENOSPC);
	req.sink = NULL;
	req.max_body = 1000;
	assert_int_equal(http_perform(w.http, &req, &resp), -EIO);
	assert_int_equal(seen_count(w.sv), 2);
	world_end(&w);
}

static bool answer_429_once(struct peer *p, const struct seen *s, unsigned n)
{
	if (n == 1)
		sayf(p, "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\nRetry-After: 77\r\nRateLimit: \"api\";r=0;t=1\r\n\r\n");
	else
		return answer_hello(p, s, n);
	return true;
}

static void test_429_makes_all_of_the_lane_wait(void **state)
{
	struct world w = {0};
	char url[128];

	world_start(&w, answer_429_once);
	struct http_req req = get_req(url, sizeof(url), &w, "/first");
	AUTO_HTTP_RESP first = {0};
	AUTO_HTTP_RESP data = {0};
	AUTO_HTTP_RESP second = {0};
	req.max_tries = 1;
	assert_int_equal(http_perform(w.http, &req, &first), 0);
	assert_int_equal(first.status, 429);
	req = get_req(url, sizeof(url), &w, "/data");
	req.lane = HTTP_DATA;
	assert_int_equal(http_perform(w.http, &req, &data), 0);
	req = get_req(url, sizeof(url), &w, "/second");
	assert_int_equal(http_perform(w.http, &req, &second), 0);
	assert_int_equal(second.status, 200);
	assert_int_equal(seen_count(w.sv), 3);
	/* t + 1 = 2 s for this lane, nothing for the other. */
	assert_string_equal(w.sv->seen[1].path, "/data");
	assert_true(w.sv->seen[1].at_ms - w.sv->seen[0].at_ms < 1500);
	assert_string_equal(w.sv->seen[2].path, "/second");
	assert_true(w.sv->seen[2].at_ms - w.sv->seen[0].at_ms >= 1900);
	world_end(&w);
}

static void test_a_429_is_tried_again(void **state)
{
	struct world w = {0};
	AUTO_HTTP_RESP resp = {0};
	char url[128];

	world_start(&w, answer_429_once);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	assert_int_equal(http_perform(w.http, &req, &resp), 0);
	assert_int_equal(resp.status, 200);
	assert_int_equal(seen_count(w.sv), 2);
	assert_true(w.sv->seen[1].at_ms - w.sv->seen[0].at_ms >= 1900);
	world_end(&w);
}

static bool answer_429_long(struct peer *p, const struct seen *s, unsigned n)
{
	sayf(p, "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\nRateLimit: \"api\";r=0;t=200\r\n\r\n");
	return true;
}

static void test_a_long_quota_window_is_told_at_once(void **state)
{
	struct world w = {.opts = {.deadline_s = 5}};
	int64_t start = util_now_ms();
	char url[128];

	world_start(&w, answer_429_long);
	for (int i = 0; i < 2; i++) {
		struct http_req req = get_req(url, sizeof(url), &w, "/");
		AUTO_HTTP_RESP resp = {0};

		assert_int_equal(http_perform(w.http, &req, &resp), 0);
		assert_int_equal(resp.status, 429);
		assert_true(resp.window_used_up);
		assert_in_range(resp.retry_after_s, 198, 202);
	}
	assert_int_equal(seen_count(w.sv), 1);
	assert_true(util_now_ms() - start < 2000);
	world_end(&w);
}

/* The quota of an action (r > 0) holds back nobody else. */
static bool answer_action_quota(struct peer *p, const struct seen *s, unsigned n)
{
	if (strcmp(s->method, "POST") != 0)
		return answer_hello(p, s, n);
	sayf(p, "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\nRetry-After: 3600\r\nRateLimit: \"api\";r=9;t=200\r\n\r\n");
	return true;
}

static void test_an_actions_quota_closes_no_gate(void **state)
{
	struct world w = {0};
	AUTO_HTTP_RESP first = {0};
	AUTO_HTTP_RESP second = {0};
	char url[128];

	world_start(&w, answer_action_quota);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.method = "POST";
	req.idempotent = false;
	assert_int_equal(http_perform(w.http, &req, &first), 0);
	assert_int_equal(first.status, 429);
	assert_int_equal(first.retry_after_s, 3600);
	assert_false(first.window_used_up);
	req = get_req(url, sizeof(url), &w, "/");
	assert_int_equal(http_perform(w.http, &req, &second), 0);
	assert_int_equal(second.status, 200);
	world_end(&w);
}

static bool answer_nothing(struct peer *p, const struct seen *s, unsigned n)
{
	stall(p);
	return false;
}

static bool answer_stalling_body(struct peer *p, const struct seen *s, unsigned n)
{
	sayf(p, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
	stall(p);
	return false;
}

static void check_deadline(handler answer)
{
	struct world w = {0};
	AUTO_HTTP_RESP resp = {0};
	int64_t start, took;
	char url[128];

	world_start(&w, answer);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.deadline_s = 1;
	start = util_now_ms();
	assert_int_equal(http_perform(w.http, &req, &resp), -ETIMEDOUT);
	took = util_now_ms() - start;
	assert_in_range(took, 900, 3000);
	world_end(&w);
}

static void test_a_stalled_answer_ends_at_the_deadline(void **state)
{
	check_deadline(answer_nothing);
	check_deadline(answer_stalling_body);
}

/* 2 s for a body whose answer has 1 s. */
static bool answer_slowly(struct peer *p, const struct seen *s, unsigned n)
{
	sayf(p, "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n");
	for (int i = 0; i < 20; i++) {
		struct pollfd quit = {.fd = p->server->quit[0], .events = POLLIN};

		poll(&quit, 1, 100);
		sayf(p, "ab");
	}
	return true;
}

static void test_moving_bytes_hold_the_deadline(void **state)
{
	struct world w = {0};
	AUTO_HTTP_RESP resp = {0};
	char url[128];

	world_start(&w, answer_slowly);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.deadline_s = 1;
	assert_int_equal(http_perform(w.http, &req, &resp), 0);
	assert_int_equal(resp.body.len, 40);
	assert_int_equal(seen_count(w.sv), 1);
	world_end(&w);
}

struct ending {
	struct world *w;
	atomic_bool cancel;
	bool stop;
	unsigned seen;
};

static void *end_thread(void *arg)
{
	struct ending *e = arg;

	wait_seen(e->w->sv, e->seen);
	if (e->stop)
		http_stop(e->w->http);
	else
		atomic_store(&e->cancel, true);
	return NULL;
}

static void check_ending(handler answer, bool stop)
{
	struct world w = {0};
	struct ending e = {.w = &w, .stop = stop, .seen = 1};
	AUTO_HTTP_RESP resp = {0};
	pthread_t thread;
	char url[128];

	world_start(&w, answer);
	struct http_req req = get_req(url, sizeof(url), &w, "/");
	req.cancel = &e.cancel;
	assert_int_equal(pthread_create(&thread, NULL, end_thread, &e), 0);
	assert_int_equal(http_perform(w.http, &req, &resp), -ECANCELED);
	pthread_join(thread, NULL);
	assert_true(util_now_ms() - w.sv->seen[0].at_ms < 1500);
	assert_int_equal(http_perform(w.http, &req, &resp), -ECANCELED);
	assert_int_equal(seen_count(w.sv), 1);
	world_end(&w);
}

static bool answer_wait_30(struct peer *p, const struct seen *s, unsigned n)
{
	sayf(p, "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\nRetry-After: 30\r\n\r\n");
	return true;
}

static void test_cancel(void **state)
{
	check_ending(answer_nothing, false);
	check_ending(answer_stalling_body, false);
	check_ending(answer_wait_30, false); /* while it waits between tries */
}

static void test_stop(void **state)
{
	check_ending(answer_nothing, true);
	check_ending(answer_wait_30, true);
}

static struct server *redirect_to;

static bool answer_redirect(struct peer *p, const struct seen *s, unsigned n)
{
	sayf(p, "HTTP/1.1 302 Found\r\nLocation: %s/signed?Signature=x%%2Fy\r\nContent-Length: 5\r\n\r\nmoved",
	     redirect_to->url);
	return true;
}

static void test_the_token_stays_at_home(void **state)
{
	struct world w = {0};
	AUTO_HTTP_RESP home = {0};
	AUTO_HTTP_RESP away = {0};
	AUTO_HTTP_RESP without = {0};
	AUTO_FREE char *want = NULL;
	char url[128];

	setenv("HF_TOKEN", "hf_secret", 1);
	redirect_to = server_new(answer_hello);
	world_start(&w, answer_redirect);
	unsetenv("HF_TOKEN");
	struct http_req req = get_req(url, sizeof(url), &w, "/r");
	assert_int_equal(http_perform(w.http, &req, &home), 0);
	/* Not followed; every byte of the Location kept. */
	assert_int_equal(home.status, 302);
	want = util_printf("%s/signed?Signature=x%%2Fy", redirect_to->url);
	assert_string_equal(home.location, want);
	assert_int_equal(seen_count(redirect_to), 0);
	assert_true(has_header(&w.sv->seen[0], "Authorization: Bearer hf_secret\r\n"));
	req.url = home.location;
	assert_int_equal(http_perform(w.http, &req, &away), 0);
	assert_int_equal(seen_count(redirect_to), 1);
	assert_false(has_header(&redirect_to->seen[0], "Authorization"));
	assert_null(strstr(redirect_to->seen[0].head, "hf_secret"));
	assert_string_equal(redirect_to->seen[0].path, "/signed?Signature=x%2Fy");
	req.url = url;
	req.no_token = true;
	assert_int_equal(http_perform(w.http, &req, &without), 0);
	assert_int_equal(seen_count(w.sv), 2);
	assert_false(has_header(&w.sv->seen[1], "Authorization"));
	world_end(&w);
	server_free(redirect_to);
}

/* A redirect that says it is a gigabyte long, and never comes to an end. */
static bool answer_lying_redirect(struct peer *p, const struct seen *s, unsigned n)
{
	sayf(p, "HTTP/1.1 307 Moved\r\nLocation: /there\r\nContent-Length: %d\r\n\r\nTemporary", n == 1
	     ? 1 << 30 : 100);
	stall(p);
	return false;
}

static void test_a_redirects_length_does_not_matter(void **state)
{
	struct world w = {0};
	char url[128];

	world_start(&w, answer_lying_redirect);
	for (int i = 0; i < 2; i++) {
		struct http_req req = get_req(url, sizeof(url), &w, "/a/b");
		AUTO_HTTP_RESP resp = {0};
		int64_t start = util_now_ms();

		assert_int_equal(http_perform(w.http, &req, &resp), 0);
		assert_int_equal(resp.status, 307);
		assert_true(util_now_ms() - start < 2000);
	}
	world_end(&w);
}

static void test_no_network(void **state)
{
	struct world w = {0};
	struct world offline = {.opts = {.offline = true}};
	AUTO_HTTP_RESP resp = {0};
	char url[128];
	int64_t start;

	world_start(&w, answer_hello);
	world_start(&offline, answer_hello);
	struct http_req req = get_req(url, sizeof(url), &offline, "/");
	assert_int_equal(http_perform(offline.http, &req, &resp), -ENETDOWN);
	assert_int_equal(seen_count(offline.sv), 0);
	/* Nobody listens there any more. */
	req = get_req(url, sizeof(url), &offline, "/");
	world_end(&offline);
	start = util_now_ms();
	assert_int_equal(http_perform(w.http, &req, &resp), -ENETDOWN);
	assert_true(util_now_ms() - start < 10000);
	world_end(&w);
}

static void test_which_urls_are_allowed(void **state)
{
	struct auth *auth;
	struct http *http;
	struct http_opts opts = {0};

	assert_int_equal(auth_new("https://hub.example", "/nonexistent", &auth), 0);
	assert_int_equal(http_new(auth, &opts, &http), 0);
	assert_true(http_url_allowed(http, "https://cdn.example/x?y"));
	assert_false(http_url_allowed(http, "http://cdn.example/x"));
	assert_false(http_url_allowed(http, "file:///etc/passwd"));
	assert_false(http_url_allowed(http, "https://a@b/x"));
	assert_false(http_url_allowed(http, "https://a\\b/x"));
	assert_false(http_url_allowed(http, "https://a/x\r\nHost: b"));
	assert_false(http_url_allowed(http, "https:///x"));
	http_free(http);
	auth_free(auth);
}

static void check_location(const char *base, const char *location, const char *want)
{
	AUTO_HTTP_RESP r = {0};

	assert_int_equal(http_head_field(&r, base, "Location", location), 0);
	assert_string_equal(r.location, want);
}

static void test_header_fields(void **state)
{
	AUTO_HTTP_RESP r = {0};
	const char *url = "https://h/a/b?c=d/e";

	check_location(url, "/x?%2Fy=\"1\"", "https://h/x?%2Fy=\"1\"");
	check_location(url, "//o/x", "https://o/x");
	check_location(url, "https://o:1/x", "https://o:1/x");
	check_location(url, "x", "https://h/a/x");
	check_location(url, "?x", "https://h/a/b?x");
	check_location("https://h", "x", "https://h/x");

	http_head_reset(&r);
	assert_int_equal(r.content_length, -1);
	assert_int_equal(http_head_field(&r, url, "Link",
	                                 "<https://h/1>; rel=\"xet-auth\", <https://h/2?a,b>; x=\"<,>\"; "
	                                                  "rel=\"next\""), 0);
	assert_string_equal(r.link_next, "https://h/2?a,b");
	assert_int_equal(http_head_field(&r, url, "X-Linked-Etag", "\"ab\""), 0);
	assert_string_equal(r.linked_etag, "ab");
	assert_int_equal(http_head_field(&r, url, "Content-Range", "bytes 5-9/20"), 0);
	assert_int_equal(r.range_first, 5);
	assert_int_equal(r.range_last, 9);
	assert_int_equal(r.range_total, 20);
	assert_int_equal(http_head_field(&r, url, "Content-Range", "bytes */30"), 0);
	assert_int_equal(r.range_first, -1);
	assert_int_equal(r.range_total, 30);
	assert_int_equal(http_head_field(&r, url, "Content-Range", "bytes 99999999999999999999-5/2"), 0);
	assert_int_equal(r.range_total, 30);
	assert_int_equal(http_head_field(&r, url, "RateLimit", "\"api\";r=3;t=9"), 0);
	assert_int_equal(http_head_field(&r, url, "Retry-After", "12"), 0);
	assert_int_equal(r.retry_after_s, 12);
	assert_int_equal(http_head_field(&r, url, "RateLimit", "\"api\"; r=0; t=33"), 0);
	assert_int_equal(r.retry_after_s, 33);
	assert_int_equal(http_head_field(&r, url, "Retry-After", "12"), 0);
	assert_int_equal(r.retry_after_s, 33);
	assert_int_equal(http_head_field(&r, url, "Content-Encoding", "identity"), 0);
	assert_int_equal(http_head_field(&r, url, "Content-Encoding", "gzip"), -EIO);

	http_head_reset(&r);
	assert_int_equal(http_head_field(&r, url, "Date", "Sun, 06 Nov 1994 08:49:37 GMT"), 0);
	assert_int_equal(http_head_field(&r, url, "Retry-After", "Sun, 06 Nov 1994 08:50:37 GMT"), 0);
	assert_int_equal(r.retry_after_s, 60);
}

static void test_log_text_of_a_url(void **state)
{
	AUTO_FREE char *text = http_url_for_log("https://h/p?X-Amz-Signature=secret#f");

	assert_string_equal(text, "https://h/p");
}

static bool answer_by_path(struct peer *p, const struct seen *s, unsigned n)
{
	sayf(p, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(s->path), s->path);
	return true;
}

static void *many_thread(void *arg)
{
	struct world *w = arg;

	for (int i = 0; i < 5; i++) {
		char url[128], path[32];
		struct http_req req;
		AUTO_HTTP_RESP resp = {0};

		snprintf(path, sizeof(path), "/%lx/%d", (unsigned long)pthread_self(), i);
		req = get_req(url, sizeof(url), w, path);
		assert_int_equal(http_perform(w->http, &req, &resp), 0);
		assert_string_equal(resp.body.data, path);
	}
	return NULL;
}

static void test_many_threads(void **state)
{
	struct world w = {0};
	pthread_t threads[8];

	world_start(&w, answer_by_path);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, many_thread, &w), 0);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(seen_count(w.sv), 40);
	for (unsigned i = 0; i < 40; i++)
		assert_true(w.sv->seen[i].connection <= 8);
	world_end(&w);
}

static int setup(void **state)
{
	static const char *const variables[] = {"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
	                                        "HF_TOKEN_PATH",
	                                        "http_proxy", "all_proxy", "ALL_PROXY"};

	for (size_t i = 0; i < ARRAY_LEN(variables); i++)
		unsetenv(variables[i]);
	/* What goes wrong here is meant to. */
	return log_set_levels(getenv("TEST_LOG") ? getenv("TEST_LOG") : "err,http=err");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connections_are_kept),
		cmocka_unit_test(test_an_idle_connection_serves_all_lanes),
		cmocka_unit_test(test_connections_do_not_outlive_a_sleep),
		cmocka_unit_test(test_a_request_goes_on_after_a_sleep),
		cmocka_unit_test(test_stalled_data_is_asked_for_again),
		cmocka_unit_test(test_an_unanswered_upload_is_sent_again),
		cmocka_unit_test(test_503_is_tried_again),
		cmocka_unit_test(test_a_post_goes_out_once),
		cmocka_unit_test(test_a_lost_answer_is_told),
		cmocka_unit_test(test_a_cut_body_goes_on_where_it_stopped),
		cmocka_unit_test(test_a_200_is_cut_to_the_range),
		cmocka_unit_test(test_content_range_is_checked),
		cmocka_unit_test(test_the_sinks_error_ends_it),
		cmocka_unit_test(test_429_makes_all_of_the_lane_wait),
		cmocka_unit_test(test_a_429_is_tried_again),
		cmocka_unit_test(test_a_long_quota_window_is_told_at_once),
		cmocka_unit_test(test_an_actions_quota_closes_no_gate),
		cmocka_unit_test(test_a_stalled_answer_ends_at_the_deadline),
		cmocka_unit_test(test_moving_bytes_hold_the_deadline),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_the_token_stays_at_home),
		cmocka_unit_test(test_a_redirects_length_does_not_matter),
		cmocka_unit_test(test_no_network),
		cmocka_unit_test(test_which_urls_are_allowed),
		cmocka_unit_test(test_header_fields),
		cmocka_unit_test(test_log_text_of_a_url),
		cmocka_unit_test(test_many_threads),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
