/* Answers of results that lie where their worker can change them, after the controller has checked them. The test is the worker, and changes
 * them between the check and the answer. */
#include "http_fixture.h"

#include "base/shared_memory.h"
#include "controller/answer.h"
#include "controller/worker_message.h"

#define SIZE ((size_t)300002)

static struct shared_memory *maker, *worker;
static enum answer_form form;
static const char *spoil; /* what is written all over the result; NULL: nothing */
static size_t spoil_from, spoil_to;
static bool base64;
static char checked[SIZE]; /* the result as it was checked */

static void open_other(void)
{
    struct buffer text = BUFFER_INIT(1000);
    struct json_writer *writer = json_writer_new(&text);
    shared_memory_offer(maker, writer);
    cr_assert_eq(json_writer_finish(writer, NULL), 0);
    autojson *offer = json_parse(text.data, text.len, NULL, NULL);
    worker = shared_memory_open(offer, NULL);
    cr_assert_not_null(worker);
    buffer_deinit(&text);
}

/* As it comes from the worker: read, checked and held. */
static void take_result(struct execution *record, const struct shared_place *place)
{
    char head[200];
    struct error err = {0};
    struct worker_message message;
    snprintf(head, sizeof(head),
             "{\"kind\":\"result\",\"execution_id\":\"e\",\"status\":\"succeeded\","
             "\"result_base64\":%s,\"result_len\":%zu}",
             base64 ? "true" : "false", SIZE);
    struct message_in in = {.message = {.head = head,
                                        .head_len = strlen(head),
                                        .body = shared_memory_at(maker, place),
                                        .body_len = SIZE},
                            .memory = maker,
                            .place = place};
    cr_assert_eq(worker_message_read(&in, &message, &err), 0, "%s", err.message);
    struct blob *held = message_hold(&in, message.result_len);
    cr_assert_not_null(held, "it was copied");
    execution_take_result(record, held);
    record->result_base64 = message.result_base64;
    worker_message_deinit(&message);
}

static void handle(struct http_request *request, void *data)
{
    (void)data;
    struct shared_place place;
    struct live_execution execution = {.request = request, .form = form};
    char *theirs = shared_memory_reserve(worker, SIZE, &place);
    cr_assert_not_null(theirs);
    memcpy(theirs, checked, SIZE);
    execution_init(&execution.record);
    execution.record.status = EXECUTION_SUCCEEDED;
    take_result(&execution.record, &place);
    if (spoil)
        for (size_t i = spoil_from; i < spoil_to; i++)
            theirs[i] = spoil[i % strlen(spoil)];
    answer_execution(&execution);
    execution_deinit(&execution.record);
}

static const struct http_route routes[] = {{"GET", "/call", handle, 0, 0}};

static void let_go(void)
{
    shared_memory_free(maker);
    shared_memory_free(worker);
}

static void set_up(void)
{
    maker = shared_memory_new(NULL);
    cr_assert_not_null(maker);
    open_other();
    form = ANSWER_RAW;
    spoil = NULL;
    spoil_from = 0;
    spoil_to = SIZE;
    base64 = false;
    memset(checked, 'a', SIZE);
    checked[0] = checked[SIZE - 1] = '"';
    fixture_start((struct http_server_options){.routes = routes, .route_count = 1});
    fixture.before_free = let_go;
}

TestSuite(answer, .init = set_up, .fini = fixture_end, .timeout = 60);

static char answer[2 * SIZE];

/* Its body; `ret_len` is what the head announces, and no more came. */
static const char *ask(const char *status, size_t *ret_len)
{
    int fd = connect_raw();
    size_t len = 0;
    ssize_t got;
    send_text(fd, "GET /call HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    while ((got = recv(fd, answer + len, sizeof(answer) - 1 - len, 0)) > 0)
        len += (size_t)got;
    close(fd);
    answer[len] = '\0';
    cr_assert_arr_eq(answer, "HTTP/1.1 ", 9);
    cr_expect_arr_eq(answer + 9, status, 3, "%.200s", answer);
    const char *body = memmem(answer, len, "\r\n\r\n", 4);
    const char *announced = strcasestr(answer, "\r\nContent-Length: ");
    cr_assert(body && announced);
    body += 4;
    *ret_len = strtoul(announced + 18, NULL, 10);
    cr_expect_eq(*ret_len, len - (size_t)(body - answer));
    return body;
}

static void expect_error(const char *why)
{
    size_t len;
    const char *body = ask("500", &len);
    cr_expect(memmem(body, len, "\"type\":\"internal\"", 17), "%.300s", body);
    cr_expect(memmem(body, len, why, strlen(why)), "%.300s", body);
}

Test(answer, a_text_that_nobody_changes_is_what_was_checked)
{
    size_t len;
    const char *body = ask("200", &len);
    cr_assert_eq(len, SIZE - 2);
    cr_expect_eq(memcmp(body, checked + 1, len), 0);
}

/* Whatever it is made of from its second byte on. */
Test(answer, a_text_that_its_worker_has_made_no_json_of_is_an_error)
{
    static const char *const spoils[] = {"\xff", "\"", "\\", "\x01", "a\\u", "\xc3", "\\ud800"};
    spoil_from = 1;
    for (size_t i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++) {
        spoil = spoils[i];
        expect_error("the worker has made no JSON of the result");
    }
}

Test(answer, bytes_that_their_worker_has_made_no_base64_of_are_an_error)
{
    base64 = true;
    memset(checked + 1, 'A', SIZE - 4);
    checked[SIZE - 3] = checked[SIZE - 2] = '=';
    size_t len;
    ask("200", &len);
    cr_expect_eq(len, (SIZE - 2) / 4 * 3 - 2);
    spoil = "!";
    spoil_from = 100;
    spoil_to = 101;
    expect_error("the worker has made no base64 of the result");
}

Test(answer, what_its_worker_has_made_no_text_of_is_an_error)
{
    static const char *const spoils[] = {"{", "1", " ", "["};
    for (size_t i = 0; i < sizeof(spoils) / sizeof(spoils[0]); i++) {
        spoil = spoils[i];
        expect_error("the worker has made no ");
    }
}

/* Under its length, as any result of this worker would. */
Test(answer, what_was_no_text_goes_out_as_it_is)
{
    size_t len;
    checked[0] = '[';
    memset(checked + 1, ' ', SIZE - 2);
    checked[SIZE - 1] = ']';
    const char *body = ask("200", &len);
    cr_assert_eq(len, SIZE);
    cr_expect_eq(memcmp(body, checked, len), 0);
    spoil = "\"";
    body = ask("200", &len);
    cr_assert_eq(len, SIZE);
    cr_expect_eq(body[0], '"');
    cr_expect_eq(body[SIZE - 1], '"');
    cr_expect(strcasestr(answer, "Content-Type: application/json"));
}

Test(answer, an_object_around_it_has_the_length_that_was_checked)
{
    size_t len;
    form = ANSWER_EXECUTION;
    spoil = "\xff";
    const char *body = ask("200", &len);
    const char *from = memchr(body, '\xff', len), *to = memrchr(body, '\xff', len);
    cr_assert(from && to);
    cr_expect_eq((size_t)(to - from + 1), SIZE);
    cr_expect_arr_eq(to + 1, ",\"cold_start\":false", 19);
}
