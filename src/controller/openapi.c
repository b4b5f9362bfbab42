/* docs/openapi.yaml inside the program: the assembler puts the file into read-only data. */
#include "controller/openapi.h"

__asm__(".section .rodata\n"
        ".global openapi_text\n"
        ".type openapi_text, @object\n"
        "openapi_text:\n"
        ".incbin \"" OPENAPI_FILE "\"\n"
        "openapi_text_end:\n"
        ".size openapi_text, openapi_text_end - openapi_text\n"
        ".balign 8\n"
        ".global openapi_len\n"
        ".type openapi_len, @object\n"
        "openapi_len:\n"
        ".quad openapi_text_end - openapi_text\n"
        ".size openapi_len, 8\n"
        ".previous\n");
