/* A race, on purpose: two threads of a team add to one variable. scripts/tsan.sh wants it to be found, or a program
 * without findings would say nothing. With an argument the same program synchronises, and must pass. */
#include <stdio.h>

int main(int argc, char **argv)
{
    int sum = 0;
    (void)argv;
    if (argc > 1) {
#pragma omp parallel for reduction(+ : sum)
        for (int i = 0; i < 1000; i++)
            sum += i;
    } else {
#pragma omp parallel for
        for (int i = 0; i < 1000; i++)
            sum += i;
    }
    printf("%d\n", sum);
    return 0;
}
