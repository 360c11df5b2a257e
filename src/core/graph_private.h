/* Shared by graph.c and profile.c. */
#ifndef CORE_GRAPH_PRIVATE_H
#define CORE_GRAPH_PRIVATE_H

#include "sdlora/graph.h"

void profile_note(Graph *g, int node, bool backward, double since);
void profile_free(struct GraphProfile *p);

#endif
