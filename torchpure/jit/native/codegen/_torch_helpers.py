"""C++ functions with which a program calls torch's kernels, and keeps or copies their results."""

TORCH_HELPERS = """
struct Torch {
  int (*call)(const char *, const char *, uint64_t *, uint64_t);
  int (*view)(void *, int64_t, const int64_t *, const int64_t *, int64_t, int32_t, int32_t, int32_t, void **);
  int (*pointer)(void *, void **);
  int (*strides)(void *, int64_t **);
  int (*sizes)(void *, int64_t **);
  int (*rank)(void *, int64_t *);
  int (*dtype)(void *, int32_t *);
  int (*drop)(void *);
  int (*list)(size_t, void **);
  int (*push)(void *, uint64_t);
  int (*some)(uint64_t **);
  int (*text)(const char *, size_t, void **);
};
static uint64_t op_real(double x) { uint64_t bits; __builtin_memcpy(&bits, &x, 8); return bits; }
static uint64_t op_tensor(const Torch *t, const void *data, int64_t rank, const int64_t *sizes, const int64_t *strides,
                          int32_t dtype) {
  void *made = 0;
  t->view((void *)data, rank, sizes, strides, 0, dtype, 0, 0, &made);
  return (uint64_t)made;
}
static uint64_t op_some(const Torch *t, uint64_t value) {
  uint64_t *made = 0;
  t->some(&made);
  *made = value;
  return (uint64_t)made;
}
template <class... Values> static uint64_t op_list(const Torch *t, Values... values) {
  void *made = 0;
  t->list(sizeof...(values), &made);
  (t->push(made, (uint64_t)values), ...);
  return (uint64_t)made;
}
static uint64_t op_text(const Torch *t, const char *text) {
  void *made = 0;
  t->text(text, __builtin_strlen(text), &made);
  return (uint64_t)made;
}
struct Result {
  void *tensor, *data = 0;
  int64_t count = 1, *size = 0, *stride = 0;
  bool same, alike = true;  // as traced: rank, sizes and dtype; strides
  Result(const Torch *t, uint64_t handle, int64_t rank, const int64_t *sizes, const int64_t *strides, int32_t dtype) {
    int64_t found = 0;
    int32_t kind = 0;
    tensor = (void *)handle;
    t->rank(tensor, &found), t->dtype(tensor, &kind), t->sizes(tensor, &size), t->strides(tensor, &stride);
    t->pointer(tensor, &data);
    same = found == rank && kind == dtype;
    for (int64_t d = 0; same && d < rank; d++) {
      same = size[d] == sizes[d], count *= sizes[d];
      alike = alike && (sizes[d] == 1 || stride[d] == strides[d]);
    }
  }
};
template <class T> static void op_copy(const Result &made, T *to, int64_t rank, const int64_t *sizes,
                                       const int64_t *strides) {
  int64_t at[64] = {}, from = 0, place = 0;
  if (made.alike) __builtin_memcpy(to, made.data, made.count * sizeof(T));
  else for (int64_t i = 0; i < made.count; i++) {
    to[place] = ((const T *)made.data)[from];
    for (int64_t d = rank - 1; d >= 0; d--) {
      from += made.stride[d], place += strides[d];
      if (++at[d] < sizes[d]) break;
      from -= made.stride[d] * sizes[d], place -= strides[d] * sizes[d], at[d] = 0;
    }
  }
}
template <class T> static bool op_take(const Torch *t, uint64_t handle, T *to, int64_t rank, const int64_t *sizes,
                                       const int64_t *strides, int32_t dtype) {
  const Result made(t, handle, rank, sizes, strides, dtype);
  if (made.same) op_copy(made, to, rank, sizes, strides);
  t->drop(made.tensor);
  return made.same;
}
struct Held {
  const Torch *t;
  void *tensor = 0;
  char *memory = 0;
  void release() {
    if (tensor) t->drop(tensor);
    free(memory), tensor = 0, memory = 0;
  }
  ~Held() { release(); }
};
static void op_keep(uint64_t handle, Held &held) { held.release(), held.tensor = (void *)handle; }
static uint64_t op_again(const Torch *t, const Held &held, int32_t dtype) {
  int64_t rank = 0, *size = 0, *stride = 0;
  void *data = 0;
  t->rank(held.tensor, &rank), t->sizes(held.tensor, &size), t->strides(held.tensor, &stride);
  t->pointer(held.tensor, &data);
  return op_tensor(t, data, rank, size, stride, dtype);
}
struct Range { const void *start; int64_t bytes; };  // of an operand; the last of several is {0, 0}
template <class T> static bool op_hold(const Torch *t, uint64_t handle, Held &held, T *&to, const Range *operand,
                                       int64_t rank, const int64_t *sizes, const int64_t *strides, int32_t dtype) {
  Result made(t, handle, rank, sizes, strides, dtype);
  held.release();
  for (; operand->start; operand++) {  // the memory of an operand is needed for other values later
    const int64_t place = (const char *)made.data - (const char *)operand->start;
    if (place >= 0 && place < operand->bytes) made.alike = false;
  }
  if (made.same && made.alike) {
    held.tensor = made.tensor, to = (T *)made.data;
    return true;
  }
  if (made.same && (held.memory = (char *)malloc(made.count * sizeof(T)))) {
    to = (T *)held.memory;
    op_copy(made, to, rank, sizes, strides);
  }
  t->drop(made.tensor);
  return made.same && held.memory;
}
"""
