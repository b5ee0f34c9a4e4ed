/* Continues a text: loads the model, and prints pieces as they come.
 *
 * README.md beside this folder has the commands that build and run it. */

#include "forge.h"

#include <stdio.h>
#include <string.h>

static int32_t print(void *user, const char *text, size_t bytes) {
    (void)user;
    return fwrite(text, 1, bytes, stdout) == bytes && fflush(stdout) == 0;
}

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, forge_last_error());
    return 1;
}

int main(int argc, char **argv) {
    const char *prompt = argc > 1 ? argv[1] : "Once upon a time";
    ForgeOptions options = forge_options_default();
    ForgeModel *model = NULL;
    uint32_t tokens[512];
    size_t count = 0;
    int code = 0;

    /* The weights: where FORGE_WEIGHTS says, in the library, beside this program, in the project. */
    if (forge_model_load(FORGE_ABI_VERSION, NULL, 0, &model) != FORGE_STATUS_OK) {
        return failed("load");
    }
    options.max_tokens = 32;
    options.temperature = 0.0f;
    printf("%s", prompt);
    if (forge_tokenize(model, prompt, strlen(prompt), 1, tokens, sizeof tokens / sizeof *tokens, &count) !=
        FORGE_STATUS_OK) {
        code = failed("tokenize");
    } else if (forge_generate(model, tokens, count, &options, print, NULL, NULL) != FORGE_STATUS_OK) {
        code = failed("generate");
    }
    printf("\n");
    forge_model_free(model);
    return code;
}
