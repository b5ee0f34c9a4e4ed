/* The C library of a model, used and misused: compiled as C and as C++, run with a generated project's library.
 *
 *     check WEIGHTS MAX_TOKENS PROMPT [--no-chats]
 *
 * prints the text that follows the prompt, most probable tokens, and says on stderr what does not hold. */

#include "forge.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 4

static int failures = 0;

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "line %d: not so: %s (last error: %s)\n", __LINE__, #condition, forge_last_error()); \
            failures += 1;                                                                                   \
        }                                                                                                    \
    } while (0)

/* The call fails with this status, and the message has these words. */
#define FAILS(call, expected, words)                                                                       \
    do {                                                                                                   \
        ForgeStatus status_ = (call);                                                                      \
        if (status_ != (expected) || strstr(forge_last_error(), (words)) == NULL) {                        \
            fprintf(stderr, "line %d: %s gave %s: %s\n", __LINE__, #call, forge_status_name((int32_t)status_), \
                    forge_last_error());                                                                   \
            failures += 1;                                                                                 \
        }                                                                                                  \
    } while (0)

/* A text that grows. */
typedef struct Text {
    char bytes[1 << 16];
    size_t length;
    int pieces;
    int most_pieces; /* ends the text after so many; 0 for never */
} Text;

static int32_t append(void *user, const char *text, size_t bytes) {
    Text *all = (Text *)user;
    CHECK(strlen(text) <= bytes && text[bytes] == '\0');
    if (all->length + bytes >= sizeof all->bytes) {
        return 0;
    }
    memcpy(all->bytes + all->length, text, bytes + 1);
    all->length += bytes;
    all->pieces += 1;
    return all->most_pieces == 0 || all->pieces < all->most_pieces;
}

static Text *new_text(void) {
    return (Text *)calloc(1, sizeof(Text));
}

/* What all parts work with. */
static ForgeModel *model;
static uint32_t tokens[4096];
static size_t token_count;
static size_t max_tokens;
static Text *expected;

static ForgeOptions greedy(void) {
    ForgeOptions options = forge_options_default();
    options.temperature = 0.0f;
    options.max_tokens = max_tokens;
    return options;
}

static void versions_and_loading(const char *weights) {
    ForgeModel *none = (ForgeModel *)&none;
    CHECK(forge_abi_version() == FORGE_ABI_VERSION);
    CHECK(strcmp(forge_status_name(FORGE_STATUS_OK), "ok") == 0);
    CHECK(strcmp(forge_status_name(FORGE_STATUS_UTF8), "no UTF-8") == 0);
    CHECK(strcmp(forge_status_name(1000), "no status") == 0);
    CHECK(strcmp(forge_last_error(), "") == 0);
    FAILS(forge_model_load(FORGE_ABI_VERSION + 1, weights, 0, &none), FORGE_STATUS_VERSION, "version 2");
    FAILS(forge_model_load(FORGE_ABI_VERSION, weights, 0, NULL), FORGE_STATUS_NULL, "place for the model");
    FAILS(forge_model_load(FORGE_ABI_VERSION, "/no/such/file", 0, &none), FORGE_STATUS_LOAD, "/no/such/file");
    CHECK(none == NULL);
    FAILS(forge_model_load(FORGE_ABI_VERSION, "\xff", 0, &none), FORGE_STATUS_UTF8, "path of the weights");
    FAILS(forge_model_load(FORGE_ABI_VERSION, weights, (size_t)-1, &none), FORGE_STATUS_LOAD, "context");
    CHECK(forge_model_load(FORGE_ABI_VERSION, weights, 0, &model) == FORGE_STATUS_OK);
    CHECK(model != NULL);
}

static void what_it_is(void) {
    ForgeInfo info;
    CHECK(forge_model_info(model, &info) == FORGE_STATUS_OK);
    CHECK(strlen(info.name) > 0 && strlen(info.architecture) > 0 && strlen(info.source) > 0);
    CHECK(info.vocab_size > 0 && info.slots > 0 && info.has_chat_template == 1);
    CHECK(0 < info.context && info.context <= info.trained_context);
    FAILS(forge_model_info(model, NULL), FORGE_STATUS_NULL, "null pointer");
}

static void texts_and_tokens(const char *prompt) {
    const size_t bytes = strlen(prompt);
    char text[256];
    size_t count = 0, length = 0;
    CHECK(forge_tokenize(model, prompt, bytes, 1, NULL, 0, &count) == FORGE_STATUS_OK && count > 1);
    FAILS(forge_tokenize(model, prompt, bytes, 1, tokens, count - 1, &length), FORGE_STATUS_BUFFER, "are needed");
    CHECK(length == count);
    CHECK(forge_tokenize(model, prompt, bytes, 1, tokens, count, &token_count) == FORGE_STATUS_OK);
    CHECK(token_count == count);
    FAILS(forge_tokenize(model, "\xc3(", 2, 1, tokens, 4096, &count), FORGE_STATUS_UTF8, "text is no UTF-8");
    FAILS(forge_tokenize(model, NULL, 1, 1, tokens, 4096, &count), FORGE_STATUS_NULL, "text is a null");
    FAILS(forge_tokenize(model, prompt, bytes, 1, tokens, 4096, NULL), FORGE_STATUS_NULL, "number of tokens");
    FAILS(forge_tokenize(model, prompt, (size_t)-1, 1, tokens, 4096, &count), FORGE_STATUS_ARGUMENT, "memory");
    CHECK(forge_tokenize(model, NULL, 0, 0, NULL, 0, &count) == FORGE_STATUS_OK && count == 0);
    CHECK(forge_detokenize(model, tokens, token_count, 0, NULL, 0, &length) == FORGE_STATUS_OK && length >= bytes);
    FAILS(forge_detokenize(model, tokens, token_count, 0, text, length, &count), FORGE_STATUS_BUFFER, "are needed");
    CHECK(forge_detokenize(model, tokens, token_count, 0, text, sizeof text, &length) == FORGE_STATUS_OK);
    CHECK(strstr(text, prompt) != NULL && strlen(text) == length);
    FAILS(forge_detokenize(model, NULL, 1, 0, text, sizeof text, &length), FORGE_STATUS_NULL, "tokens");
    FAILS(forge_detokenize(model, (const uint32_t *)(const void *)((const char *)tokens + 1), 1, 0, text, 4, &length),
          FORGE_STATUS_ARGUMENT, "not aligned");
}

static void chats(void) {
    static const char chat[] = "[{\"role\": \"user\", \"content\": \"Hi, you!\"}]";
    static const char closed[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi, you!\"}], \"add_generation_prompt\": false}";
    char text[1024];
    size_t bytes = 0, fewer = 0;
    CHECK(forge_apply_chat_template(model, chat, sizeof chat - 1, NULL, 0, &bytes) == FORGE_STATUS_OK);
    CHECK(forge_apply_chat_template(model, chat, sizeof chat - 1, text, bytes + 1, &bytes) == FORGE_STATUS_OK);
    CHECK(strstr(text, "Hi, you!") != NULL && strlen(text) == bytes);
    CHECK(forge_apply_chat_template(model, closed, sizeof closed - 1, text, sizeof text, &fewer) == FORGE_STATUS_OK);
    CHECK(fewer < bytes);
    FAILS(forge_apply_chat_template(model, "{", 1, text, sizeof text, &bytes), FORGE_STATUS_ARGUMENT, "no JSON");
    FAILS(forge_apply_chat_template(model, "[{}]", 4, text, sizeof text, &bytes), FORGE_STATUS_TEMPLATE, "role");
}

static void a_text_by_callback(void) {
    ForgeOptions options = greedy();
    ForgeSummary summary;
    expected = new_text();
    CHECK(forge_generate(model, tokens, token_count, &options, append, expected, &summary) == FORGE_STATUS_OK);
    CHECK(expected->length > 0 && expected->pieces > 1);
    CHECK(summary.prompt_tokens == token_count && summary.completion_tokens > 1);
    CHECK(summary.finish == FORGE_FINISH_LENGTH || summary.finish == FORGE_FINISH_STOP);
    printf("%s\n", expected->bytes);

    Text *text = new_text();
    text->most_pieces = 2;
    CHECK(forge_generate(model, tokens, token_count, &options, append, text, &summary) == FORGE_STATUS_OK);
    CHECK(summary.finish == FORGE_FINISH_CANCELLED && text->pieces == 2);
    CHECK(strncmp(text->bytes, expected->bytes, text->length) == 0);

    /* What the text has in its middle, in whole characters, ends it. */
    char stop[16] = {0};
    const char *stops[1];
    size_t from = expected->length / 2;
    while (((unsigned char)expected->bytes[from] & 0xc0) == 0x80) {
        from -= 1;
    }
    size_t to = from + 4 < expected->length ? from + 4 : expected->length;
    while (((unsigned char)expected->bytes[to] & 0xc0) == 0x80) {
        to += 1;
    }
    stops[0] = stop;
    memcpy(stop, expected->bytes + from, to - from);
    options.stop = stops;
    options.stop_count = 1;
    memset(text, 0, sizeof *text);
    CHECK(forge_generate(model, tokens, token_count, &options, append, text, &summary) == FORGE_STATUS_OK);
    CHECK(summary.finish == FORGE_FINISH_STOP && strstr(text->bytes, stop) == NULL);
    CHECK(strstr(expected->bytes, stop) == expected->bytes + text->length);
    free(text);
}

static void a_text_by_pieces(size_t capacity) {
    ForgeOptions options = greedy();
    ForgeGeneration *generation = NULL;
    ForgeSummary summary;
    Text *text = new_text();
    char piece[64];
    size_t bytes = 0;
    CHECK(forge_generation_start(model, tokens, token_count, &options, &generation) == FORGE_STATUS_OK);
    FAILS(forge_generation_next(generation, piece, 4, &bytes), FORGE_STATUS_BUFFER, "5 are needed");
    FAILS(forge_generation_next(generation, NULL, 64, &bytes), FORGE_STATUS_NULL, "text");
    FAILS(forge_generation_summary(generation, &summary), FORGE_STATUS_UNFINISHED, "to its end");
    do {
        CHECK(forge_generation_next(generation, piece, capacity, &bytes) == FORGE_STATUS_OK && bytes < capacity);
        append(text, piece, bytes);
    } while (bytes > 0);
    CHECK(strcmp(text->bytes, expected->bytes) == 0);
    CHECK(forge_generation_summary(generation, &summary) == FORGE_STATUS_OK);
    CHECK(summary.prompt_tokens == token_count && summary.completion_tokens > 1);
    CHECK(forge_generation_free(generation) == FORGE_STATUS_OK);
    FAILS(forge_generation_free(generation), FORGE_STATUS_HANDLE, "the generation was freed");
    FAILS(forge_generation_next(generation, piece, 64, &bytes), FORGE_STATUS_HANDLE, "the generation was freed");
    free(text);
}

static void wrong_requests(void) {
    ForgeOptions options = greedy();
    ForgeGeneration *generation = NULL;
    const uint32_t unknown = 0xffffffffu;
    const char *stops[1];
    CHECK(forge_generation_start(model, tokens, 0, NULL, &generation) == FORGE_STATUS_PROMPT);
    FAILS(forge_generation_start(model, &unknown, 1, NULL, &generation), FORGE_STATUS_PROMPT, "outside the vocabulary");
    FAILS(forge_generation_start(model, tokens, token_count, NULL, NULL), FORGE_STATUS_NULL, "generation");
    FAILS(forge_generate(model, tokens, token_count, NULL, NULL, NULL, NULL), FORGE_STATUS_NULL, "on_text");
    options.temperature = -1.0f;
    FAILS(forge_generation_start(model, tokens, token_count, &options, &generation), FORGE_STATUS_ARGUMENT, "temperature");
    CHECK(generation == NULL);
    options = greedy();
    stops[0] = NULL;
    options.stop = stops;
    options.stop_count = 1;
    FAILS(forge_generation_start(model, tokens, token_count, &options, &generation), FORGE_STATUS_NULL, "stop text");
    stops[0] = "\xff";
    FAILS(forge_generation_start(model, tokens, token_count, &options, &generation), FORGE_STATUS_UTF8, "stop text");
    options.stop_count = 5000;
    FAILS(forge_generation_start(model, tokens, token_count, &options, &generation), FORGE_STATUS_ARGUMENT, "5000");
}

static void wrong_handles(void) {
    ForgeGeneration *generation = NULL;
    ForgeInfo info;
    int local = 0;
    FAILS(forge_model_info(NULL, &info), FORGE_STATUS_NULL, "the model is a null pointer");
    FAILS(forge_model_info((const ForgeModel *)(const void *)&local, &info), FORGE_STATUS_HANDLE, "none of this library");
    CHECK(forge_generation_start(model, tokens, token_count, NULL, &generation) == FORGE_STATUS_OK);
    FAILS(forge_model_info((const ForgeModel *)(const void *)generation, &info), FORGE_STATUS_HANDLE, "none of this");
    FAILS(forge_generation_cancel((const ForgeGeneration *)(const void *)model), FORGE_STATUS_HANDLE, "none of this");
    CHECK(forge_generation_free(generation) == FORGE_STATUS_OK);
    CHECK(forge_generation_free(NULL) == FORGE_STATUS_OK);
    CHECK(forge_model_free(NULL) == FORGE_STATUS_OK);
}

/* A thread's text is the one that was generated alone, and its errors are its own. */
static void *one_of_many(void *unused) {
    ForgeOptions options = greedy();
    Text *text = new_text();
    CHECK(strcmp(forge_last_error(), "") == 0);
    CHECK(forge_generate(model, tokens, token_count, &options, append, text, NULL) == FORGE_STATUS_OK);
    CHECK(strcmp(text->bytes, expected->bytes) == 0);
    free(text);
    return unused;
}

static void side_by_side(void) {
    pthread_t threads[THREADS];
    FAILS(forge_model_info(NULL, NULL), FORGE_STATUS_NULL, "model");
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, one_of_many, NULL) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

/* Reads a text to its end. */
static void *reader(void *user) {
    ForgeGeneration *generation = (ForgeGeneration *)user;
    char piece[64];
    size_t bytes = 0;
    ForgeStatus status;
    do {
        status = forge_generation_next(generation, piece, sizeof piece, &bytes);
    } while (status == FORGE_STATUS_OK && bytes > 0);
    /* It had not begun, or it had. */
    CHECK(status == FORGE_STATUS_CANCELLED || status == FORGE_STATUS_OK);
    return NULL;
}

/* Ended by another thread than the one that reads: the text itself, or all texts with their model. */
static void ended_from_elsewhere(int with_model) {
    ForgeOptions options = greedy();
    ForgeGeneration *generation = NULL;
    ForgeSummary summary;
    pthread_t thread;
    options.max_tokens = 100000;
    CHECK(forge_generation_start(model, tokens, token_count, &options, &generation) == FORGE_STATUS_OK);
    CHECK(pthread_create(&thread, NULL, reader, generation) == 0);
    CHECK((with_model ? forge_model_free(model) : forge_generation_cancel(generation)) == FORGE_STATUS_OK);
    CHECK(pthread_join(thread, NULL) == 0);
    /* It may have been faster. */
    if (forge_generation_summary(generation, &summary) != FORGE_STATUS_OK) {
        CHECK(strcmp(forge_last_error(), "cancelled") == 0);
    }
    CHECK(forge_generation_free(generation) == FORGE_STATUS_OK);
}

static void after_the_model(void) {
    ForgeGeneration *generation = NULL;
    ForgeInfo info;
    FAILS(forge_model_info(model, &info), FORGE_STATUS_HANDLE, "the model was freed");
    FAILS(forge_model_free(model), FORGE_STATUS_HANDLE, "the model was freed");
    FAILS(forge_generation_start(model, tokens, token_count, NULL, &generation), FORGE_STATUS_HANDLE, "was freed");
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: check WEIGHTS MAX_TOKENS PROMPT [--no-chats]\n");
        return 2;
    }
    max_tokens = (size_t)strtoul(argv[2], NULL, 10);
    versions_and_loading(argv[1]);
    if (model == NULL) {
        return 1;
    }
    what_it_is();
    texts_and_tokens(argv[3]);
    if (argc == 4) {
        chats();
    }
    a_text_by_callback();
    a_text_by_pieces(5);
    a_text_by_pieces(64);
    wrong_requests();
    wrong_handles();
    side_by_side();
    ended_from_elsewhere(0);
    ended_from_elsewhere(1);
    after_the_model();
    free(expected);
    return failures == 0 ? 0 : 1;
}
