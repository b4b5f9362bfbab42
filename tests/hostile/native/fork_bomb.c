/* As many processes as there can be, each trying to make more, for ever. */
#include <unistd.h>

int main(void)
{
    for (;;)
        fork();
}
