/* A compiler that compiles nothing: its code names the architecture. */

#include <stdlib.h>
#include <string.h>

typedef struct Program {
    char *source;
    char code[64], log[64];
} Program;

int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return 0; }
const char *nvrtcGetErrorString(int status) { return status == 6 ? "NVRTC_ERROR_COMPILATION" : "another error"; }
int nvrtcCreateProgram(Program **out, const char *source, const char *name, int headers, const char *const *texts,
                       const char *const *names) {
    (void)name, (void)texts, (void)names;
    *out = calloc(1, sizeof(Program));
    (*out)->source = strdup(source);
    return headers ? 3 : 0;
}
int nvrtcDestroyProgram(Program **program) {
    free((*program)->source);
    free(*program);
    *program = NULL;
    return 0;
}
int nvrtcCompileProgram(Program *program, int count, const char *const *options) {
    const char *architecture = "--gpu-architecture=";
    strcpy(program->log, strstr(program->source, "nonsense") ? "error: nonsense is undefined" : "");
    for (int i = 0; i < count; i++) {
        if (strncmp(options[i], architecture, strlen(architecture))) continue;
        strcpy(program->code, "code for ");
        strncat(program->code, options[i] + strlen(architecture), 32);
    }
    return program->log[0] ? 6 : 0;
}
int nvrtcGetProgramLogSize(Program *program, size_t *bytes) { *bytes = strlen(program->log) + 1; return 0; }
int nvrtcGetProgramLog(Program *program, char *log) { strcpy(log, program->log); return 0; }
int nvrtcGetCUBINSize(Program *program, size_t *bytes) { *bytes = strlen(program->code) + 1; return 0; }
int nvrtcGetCUBIN(Program *program, char *code) { strcpy(code, program->code); return 0; }
