/* The graph: built once, planned once, run many times.
 *
 *   Graph *g = graph_new(backend_get(), true, &err);
 *   Node *x = op_input(g, shape4(n, 28, 28, 1));
 *   Node *y = op_linear(g, x, w, b, NULL);  ...  Node *loss = op_loss(g, y, target, false, 1.0);
 *   graph_plan(g, loss, 0, false, &err);
 *   fill x->val.data;  graph_forward(g);  graph_backward(g);
 *
 * Building. An op_* function (ops.h) checks shapes, appends a node and returns it. The first mistake is kept in the
 * graph with the scope where it happened; from then on every op returns NULL (also when it is given NULL), and
 * graph_plan reports it. So model code builds straight through and checks once. An op that is given a node twice reads
 * the second through a copy, where gradients are wanted: then each of its inputs has a gradient of its own.
 *
 * Memory. Every value, gradient, saved statistic has a life measured in steps of one forward and one backward pass: a
 * value lives from its op until its last reader (a forward, or the backward of a node that declares in `saves` that it
 * reads it), a gradient from its first writer until its producer's backward. graph_plan packs these lives into one
 * slab. The first writer of a gradient overwrites, later ones add (Grad.beta), so nothing is ever cleared. Graphs over
 * the same weights may run side by side: the later ones have the first as `twin`, and where they are trained each has
 * graph_grads_to. Where Graph.adds is set, the gradients of the weights have a place in the slab, too: from there one
 * is added to what the last pass left as soon as it is whole, while it is still near. Inputs live throughout. Values of
 * nodes marked by graph_keep live until the next forward, fixed ones always. Where Graph.lean is set, a value that is
 * cheap to compute from what is kept (OpDef.again) dies after its last forward. It has another life from the first
 * backward that reads it on, or two where long nobody does: convolutions' outputs stay, but those of the image; they,
 * normalisations, activations, sublayers, concats are computed once more (Chen et al. 2016, "Training Deep Nets with
 * Sublinear Memory Cost"). Gradients are the same bits. And filters are transformed where they are used, into scratch
 * memory, one after the other, instead of all at once when weights have changed: where one pass makes a step that is no
 * more work. A lean graph and its twins outside training run one after the other, and share that memory.
 *
 * Concat. The value of a concat holds its inputs side by side in every pixel, so an input may be computed right there:
 * its rows then lie Tensor.row reals apart. The plan does so where the op that makes the input and all that read it can
 * work on such rows (OpDef.heeds_row): the concat's place then lives from the first such input on, and the concat
 * copies only the others. Gradients are copied: measured, what reads and writes them apart costs as much as the
 * copies. */
#ifndef SDLORA_GRAPH_H
#define SDLORA_GRAPH_H

#include "sdlora/backend.h"
#include "sdlora/param.h"

#define NODE_MAX_IN 7
#define NODE_LIVES  2 /* besides that of forward */
#define SAVE_IN(i)  (1u << (i))
#define SAVE_OUT    (1u << NODE_MAX_IN)

typedef struct Node Node;
typedef struct Graph Graph;

/* One operation: its calculus. The constructor op_NAME (ops.h) holds the shape rule and stands beside these. */
typedef struct OpDef {
    const char *name;
    int inplace;    /* k > 0: val may take the place of in[k-1]'s val when that dies here */
    int grad_alias; /* k > 0: d in[k-1] is the output's gradient itself, so the two may share one place; bwd then finds
                       node_grad(n, k-1).p == n->grad.data and has nothing to do for it */
    int grad_over;  /* k > 0: d in[k-1] may take the place of in[k-1]'s val when that dies here: where bwd writes it, it
                       has read the value */
    bool concat; /* val is the inputs' vals side by side in the last dimension; fwd has nothing to do for an input that
                    lies there already */
    unsigned heeds_row; /* SAVE_IN(i): fwd and bwd read in[i]'s val, SAVE_OUT: fwd writes val by its Tensor.row */
    size_t (*scratch)(const Node *n, const Graph *g); /* bytes needed during fwd or bwd; NULL: none */
    /* After weights changed, before any fwd: fills prep from inputs that are parameters, or fixed. NULL: nothing */
    void (*prepare)(Node *n, const Graph *g);
    void (*fwd)(Node *n, const Graph *g); /* reads the inputs' values, be they parameters or computed */
    void (*bwd)(Node *n, const Graph *g); /* reads n->grad and what `saves` says, writes node_grad of every input */
    /* Computes val once more from the same inputs, bit for bit, and nothing else. NULL: it is not cheap enough */
    void (*again)(Node *n, const Graph *g);
    bool (*cheap)(const Node *n);   /* whether `again` is, of this node; NULL: of all */
    double (*flops)(const Node *n); /* of one forward pass, a multiply-add being two; NULL: not counted */
} OpDef;

typedef union NodeAttr { /* constants of the node, by op */
    ConvShape conv;
    NormShape norm;
    SublayerShape sublayer;
    struct {
        int n, rows, in, out;
    } linear;
    struct {
        Act act;
    } act;
    struct {
        real a, b;
    } axpby;
    struct {
        bool l1;
        double scale; /* loss = scale * sum */
    } loss;
    struct {
        const int *label;
        double scale;
    } cross;
    struct {
        const int *ids;
        const int *to; /* op_embedding_mix; NULL: none */
        const float *part;
    } embed;
} NodeAttr;

struct Node {
    const OpDef *op;
    const char *scope; /* where it was built, for messages and the profile */
    int index;         /* place in the order of building, which is the order of running */
    Tensor val, grad;  /* grad.data is NULL unless it needs one and the loss depends on it */
    Node *in[NODE_MAX_IN];
    int n_in;
    unsigned saves; /* what bwd reads, set by the constructor: SAVE_IN(i), SAVE_OUT; aux is always kept for it */
    real beta[NODE_MAX_IN]; /* of node_grad */
    size_t aux_bytes[2];    /* kept from fwd to bwd: statistics, probabilities, argmax */
    void *aux[2];
    size_t prep_bytes[2]; /* kept between runs, filled by `prepare`: transformed filters, [0] forward, [1] backward */
    void *prep[2];
    NodeAttr attr;
    void *extra;     /* what an op keeps besides: a graph_block */
    Param *param;    /* op "param" */
    real *stage;     /* op "param", with Graph.adds: where its gradient comes to be before it is added */
    int whole_after; /* the node after whose bwd it is whole */
    bool needs_grad; /* some trainable parameter lies upstream */
    bool keep;
    bool fixed;   /* outside training: depends on parameters and fixed inputs alone, so it runs in graph_prepare only */
    bool reached; /* its gradient is part of d loss */
    int again[NODE_LIVES]; /* set by the plan: before these steps of backward val is computed again; 0: it is not */
    struct NodePlace {
        real *data;
        size_t row;
    } place[1 + NODE_LIVES]; /* where val lies after forward, after again[0] and again[1] */
};

struct Graph {
    const Backend *be;
    bool train;        /* gradients are wanted; BatchNorm uses the batch's statistics and moves the running ones */
    bool batch_stats;  /* BatchNorm uses batch statistics outside training too */
    bool lean;         /* to be set before building: less memory, more work */
    bool frozen_stats; /* BatchNorm uses the running statistics in training too and leaves them alone (frozen base) */
    bool adds;         /* to be set before planning: graph_grads_to may be asked to add */
    enum { STALE_NOTHING, STALE_TRAINED, STALE_ALL } stale; /* what must be prepared again before the next forward */
    Graph *twin; /* whose prepared filters this one uses instead of its own; NULL: none */
    Node **nodes;
    int count, cap;
    Node *loss;
    double loss_value; /* of the last forward */
    real *sums;        /* what the weights' gradients are added to; NULL: they are written */
    void *slab, *scratch, *prep_slab;
    bool borrows; /* scratch is its twin's */
    int threads;  /* so many may run it, or fewer: threads_count() when it was planned */
    size_t slab_bytes, scratch_bytes, prep_bytes, naive_bytes; /* naive: what a plain plan takes */
    const char *scope;
    bool poison; /* fill every place with NaN when its life ends: catches a backward that reads more than it declared */
    struct PlanItem *items; /* the plan: lives and places */
    int n_items;
    struct GraphProfile *profile; /* NULL unless graph_profile was called */
    void **blocks;                /* every small block the graph owns */
    int n_blocks, cap_blocks;
    Err err; /* the first mistake while building */
};

Graph *graph_new(const Backend *be, bool train, Err *e);
void graph_free(Graph *g);

/* n zeroed ints that live as long as the graph (class ids). NULL as from a failed op. */
int *graph_ints(Graph *g, int n);
float *graph_floats(Graph *g, int n);

/* Names where the following nodes belong, for messages and the profile; the text is copied. */
void graph_scope(Graph *g, const char *scope);

void graph_keep(Node *n);
/* An input that stays as it is from one forward to the next; graph_weights_changed says when it did not. Outside
 * training what depends on nothing else is computed once. To be called before the input is used. */
void graph_fix(Node *input);

/* Plan memory for a forward pass (loss NULL) or a forward and a backward pass. Fails with the first building mistake or
 * when memory is refused; max_bytes (0: no limit) refuses a larger plan, saying both sizes. plain: no sharing, every
 * tensor its own place: nothing in place of another, nothing inside a concat (tests compare the two). */
int graph_plan(Graph *g, Node *loss, size_t max_bytes, bool plain, Err *e);
/* Only work out what graph_plan would need: graph_bytes then says it. The graph cannot run, and is to be freed. */
int graph_measure(Graph *g, Node *loss, Err *e);

void graph_forward(Graph *g); /* also g->loss_value */
/* Where did it begin? Runs a graph outside training again on the inputs it has, op by op, and looks at each value
 * before another takes its place: the first node, in the order of building, whose value is not finite; inputs and
 * parameters are nodes too. NULL: none. */
const Node *graph_find_not_finite(Graph *g);
void graph_backward(Graph *g); /* overwrites the gradient of every trainable parameter that the loss depends on */
/* From here on the gradients of the weights go to `slab`, laid out as their store's, instead of into the store.
 * add: each is added to what lies there when it is whole, so the bytes are those of adding two slabs. Borrowed. */
void graph_grads_to(Graph *g, real *slab, bool add);
void graph_weights_changed(Graph *g);
/* Only those weights changed that are trainable: filters of the others stay prepared. */
void graph_trained_weights_changed(Graph *g);
/* What the next graph_forward would begin with where weights changed. Graphs that share filters may run at the same
 * time once it has been called. */
void graph_prepare(Graph *g);

size_t graph_bytes(const Graph *g); /* slab, scratch, prepared filters, as far as they are its own */

/* One place in the slab: bytes [offset, offset+bytes) belong to it from step `start` to step `end` (inclusive). Forward
 * of node i is step i, its backward step 2*count-1-i. */
typedef struct PlanItem {
    size_t bytes, offset;
    int start, end;
} PlanItem;
void plan_pack(PlanItem *items, int n, bool plain, size_t *total); /* fills offsets; *total is the size of the slab */

/* Time per op: after graph_profile every run of an op is timed; rows are in order of building, one per node. */
int graph_profile(Graph *g, Err *e);
typedef struct ProfileRow {
    const char *op, *scope;
    double fwd_s, bwd_s;
    double fwd_flops, bwd_flops; /* multiply-adds counted twice, as of direct convolution; 0: not counted */
    long calls;
} ProfileRow;
/* Adds to rows, which begin as zeros, so that twins can be summed up; the number of nodes. */
int graph_profile_rows(const Graph *g, ProfileRow *rows, int max);

/* ---- for ops ---- */
Node *graph_add(Graph *g, const OpDef *op, Shape out, Node *const *in, int n_in); /* NULL: a mistake was made before */
Node *graph_fail(Graph *g, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* always NULL */
void *graph_block(Graph *g, size_t count, size_t size); /* zeroed, freed with the graph; NULL after a mistake */
static inline bool node_wants(const Node *n, int i)
{
    return i < n->n_in && n->in[i] && n->in[i]->grad.data;
}
static inline bool node_trains(const Node *n, int i) /* for constructors: before the plan says what is wanted */
{
    return i < n->n_in && n->in[i] && n->in[i]->needs_grad;
}
static inline Grad node_grad(const Node *n, int i) /* where bwd writes d in[i] */
{
    return node_wants(n, i) ? (Grad){n->in[i]->grad.data, n->beta[i]} : (Grad){NULL, 0};
}
static inline real *node_val(const Node *n, int i) /* in[i]'s value, or NULL where the input is absent */
{
    return i < n->n_in && n->in[i] ? n->in[i]->val.data : NULL;
}

#endif
