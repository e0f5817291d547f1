/* The C ABI of skytorch-wire: the one door between the Rust data plane and the two C++ rooms. */

#ifndef SKYTORCH_WIRE_H
#define SKYTORCH_WIRE_H

/* Generated from src/abi.rs by cbindgen (`make generate`). Do not edit. */

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

// Raised whenever a struct or a function in this file changes shape. C++ refuses a table of another version.
#define SKY_ABI_VERSION 3

// Longest error message that crosses the ABI, in bytes, the terminating zero included.
#define SKY_MESSAGE_BYTES 4096

#define SKY_OK 0

#define SKY_ERR_INTERNAL 1

#define SKY_ERR_INVALID_ARGUMENT 2

#define SKY_ERR_UNREACHABLE 3

#define SKY_ERR_CONNECTION_LOST 4

#define SKY_ERR_UNAUTHENTICATED 5

#define SKY_ERR_SERVER_BUSY 6

#define SKY_ERR_VERSION_MISMATCH 7

#define SKY_ERR_NOT_SUPPORTED 8

#define SKY_ERR_PROTOCOL 9

#define SKY_ERR_LIMIT_EXCEEDED 10

#define SKY_ERR_SESSION_CLOSED 11

#define SKY_ERR_FORKED 12

#define SKY_ERR_INTERRUPTED 13

#define SKY_ERR_TIMEOUT 14

#define SKY_ERR_DEVICE_NOT_FOUND 15

#define SKY_ERR_OP_RUNTIME 32

#define SKY_ERR_OP_INDEX 33

#define SKY_ERR_OP_VALUE 34

#define SKY_ERR_OP_TYPE 35

#define SKY_ERR_OP_NOT_IMPLEMENTED 36

#define SKY_ERR_OP_OUT_OF_MEMORY 37

#define SKY_ERR_OP_LINALG 38

#define SKY_SCALAR_INT 0

#define SKY_SCALAR_FLOAT 1

#define SKY_SCALAR_COMPLEX 2

#define SKY_SCALAR_BOOL 3

// dtype byte of an output that the operator returns undefined (an optional gradient).
#define SKY_DTYPE_UNDEFINED 255

#define SKY_GEOMETRY_CONJ 1

#define SKY_GEOMETRY_NEG 2

// Set on an output that the operator's schema returns as one Tensor of a list (outputs are flattened in order).
#define SKY_GEOMETRY_IN_LIST 4

#define SKY_ARG_NONE 0

// A tensor on the device: `integer` is its index among the instance's *input storages*, `geometry` its place there.
#define SKY_ARG_TENSOR 1

// A 0-dim CPU tensor whose value is the instance's next scalar; `integer` is its dtype, `flag` 1 = wrapped number.
#define SKY_ARG_CPU_SCALAR 2

#define SKY_ARG_INT 3

#define SKY_ARG_BOOL 4

// Constant double in `real`.
#define SKY_ARG_DOUBLE 5

// A double that is the instance's next scalar.
#define SKY_ARG_DOUBLE_SLOT 6

// An at::Scalar that is the instance's next scalar (its kind is part of the template: `integer`, SKY_SCALAR_*).
#define SKY_ARG_SCALAR_SLOT 7

// Constant at::Scalar: `flag` is SKY_SCALAR_*, the value is in integer/real/imag.
#define SKY_ARG_SCALAR 8

// UTF-8 in `bytes`.
#define SKY_ARG_STRING 9

// int64 little-endian array in `bytes` (`count` elements).
#define SKY_ARG_INT_LIST 10

// f64 array in `bytes` (`count` elements).
#define SKY_ARG_DOUBLE_LIST 11

// one byte each in `bytes` (`count` elements).
#define SKY_ARG_BOOL_LIST 12

// `integer` is c10::ScalarType.
#define SKY_ARG_DTYPE 13

// `integer` is c10::Layout.
#define SKY_ARG_LAYOUT 14

// `integer` is c10::MemoryFormat.
#define SKY_ARG_MEMORY_FORMAT 15

// `integer` is the server's device number (its position in the handshake's device list).
#define SKY_ARG_DEVICE 16

// A generator: the instance's next scalar is its id as INT (0 = the device's default generator).
#define SKY_ARG_GENERATOR 17

// `count` elements follow (Tensor?[], Tensor[], Scalar[], ...). `flag` 1: the elements are optional.
#define SKY_ARG_LIST 18

#define SKY_TEMPLATE_OP 0

// Read one tensor back: args[0] is its geometry. `layout` below says how the bytes lie.
#define SKY_TEMPLATE_READ 1

// Write bytes into one tensor: args[0] is its geometry.
#define SKY_TEMPLATE_WRITE 2

// Bytes of a READ or WRITE are the tensor's elements in logical (row-major) order.
#define SKY_LAYOUT_LOGICAL 0

// The tensor is non-overlapping and dense; the bytes are its span of the storage, in memory order.
#define SKY_LAYOUT_MEMORY 1

// key, value: process-wide torch flags; keys are SKY_CONTEXT_*.
#define SKY_CALL_CONTEXT 1

// generator id, device, seed: create it if it is new, seed it.
#define SKY_CALL_GENERATOR_SEED 2

// generator id, device (r): bytes = get_state().
#define SKY_CALL_GENERATOR_GET_STATE 3

// generator id, device; payload = state bytes.
#define SKY_CALL_GENERATOR_SET_STATE 4

// generator id: drop it.
#define SKY_CALL_GENERATOR_FREE 5

// device (r): everything before it has run. Raises a poison that nobody has read (see also SKY_CALL_TAKE_POISON).
#define SKY_CALL_SYNCHRONIZE 6

// event id, device: record.
#define SKY_CALL_EVENT_RECORD 7

// event id (r): synchronise with it.
#define SKY_CALL_EVENT_SYNCHRONIZE 8

// event a, event b (r): values[0] = elapsed ms (float).
#define SKY_CALL_EVENT_ELAPSED 9

// event id: drop it.
#define SKY_CALL_EVENT_FREE 10

// device (r): values = allocated, max allocated, reserved, max reserved, free, total bytes.
#define SKY_CALL_MEMORY_STATS 11

// device: reset the peaks.
#define SKY_CALL_MEMORY_RESET_PEAK 12

// device: give cached memory back.
#define SKY_CALL_EMPTY_CACHE 13

// (r): the first poison that nobody has read, as an error; OK when there is none.
#define SKY_CALL_TAKE_POISON 14

// payload = a lane address (r): values[0] = 1 if this server can open a lane to it.
#define SKY_CALL_PROBE 15

// payload = where the program issued the records to come, named in their errors; empty: it does not say.
#define SKY_CALL_ORIGIN 16

#define SKY_CONTEXT_DETERMINISTIC 1

#define SKY_CONTEXT_MATMUL_PRECISION 2

#define SKY_CONTEXT_NUM_THREADS 3

#define SKY_CONTEXT_CUDNN_BENCHMARK 4

#define SKY_CONTEXT_CUDNN_DETERMINISTIC 5

#define SKY_CONTEXT_CUDNN_TF32 6

#define SKY_CONTEXT_CUBLAS_TF32 7

#define SKY_CONTEXT_FLUSH_DENORMAL 8

// torch.get_default_dtype() as c10::ScalarType: it decides what an integer tensor and a float make.
#define SKY_CONTEXT_DEFAULT_DTYPE 9

#define SKY_RECORD_DEFINE 1

#define SKY_RECORD_OP 2

#define SKY_RECORD_FREE 3

#define SKY_RECORD_ALLOC 4

#define SKY_RECORD_RESIZE 5

// Write whose bytes are in `payload`.
#define SKY_RECORD_WRITE 6

// Write whose bytes come over a lane as transfer `transfer` of `n_bytes`: the fence of INV-1. Of several tensors the
// bytes come one after those of another, and then a byte for each: 1, or 0 if its bytes are not its value.
#define SKY_RECORD_WRITE_LANE 7

#define SKY_RECORD_READ 8

// An op that answers `request` with the geometry of its outputs.
#define SKY_RECORD_QUERY 9

// Control: `method`, `args`, `payload`; answers `request` unless that is 0.
#define SKY_RECORD_CALL 10

// Send tensors (READ templates) to another server, as a WRITE_LANE takes them: hand `payload` (opaque) and the bytes to
// `SkyServerApi::send`.
#define SKY_RECORD_SEND 11

// The listening server (owned by Python through `skytorch._wire.Server`).
typedef struct SkyServer SkyServer;

// One accepted session, owned by the executor until `session_close`.
typedef struct SkyServerSession SkyServerSession;

// A client session; reference counted (`retain`, `release`).
typedef struct SkySession SkySession;

// Filled by a function that returned something other than `SKY_OK`. `message` is UTF-8, zero-terminated.
typedef struct SkyError {
  uint32_t code;
  uint8_t message[SKY_MESSAGE_BYTES];
} SkyError;

// Borrowed bytes.
typedef struct SkyBytes {
  const uint8_t *data;
  uint64_t size;
} SkyBytes;

// A number that travels with an op instance and not in its template. `integer` for INT and BOOL, `real` (and
// `imag`) for FLOAT and COMPLEX.
typedef struct SkyScalar {
  uint8_t kind;
  int64_t integer;
  double real;
  double imag;
} SkyScalar;

// Where a tensor lies in its storage. `offset` and `strides` count elements. `dtype` is c10::ScalarType's number
// (the table is in docs/wire.md). At most 64 dimensions.
typedef struct SkyGeometry {
  uint8_t dtype;
  uint8_t ndim;
  uint8_t flags;
  int64_t offset;
  const int64_t *sizes;
  const int64_t *strides;
} SkyGeometry;

// One argument of a template. Unused fields are zero.
typedef struct SkyArg {
  uint8_t kind;
  uint8_t flag;
  uint32_t count;
  int64_t integer;
  double real;
  double imag;
  struct SkyBytes bytes;
  struct SkyGeometry geometry;
} SkyArg;

// What an op key stands for. Sent once per slot; a later template in the same slot replaces it.
typedef struct SkyTemplate {
  uint8_t kind;
  uint8_t layout;
  // Number of the server's device on which the op runs and its outputs live.
  uint8_t device;
  // "aten::add.Tensor" (overload after the dot, none: "aten::relu"). Empty for READ and WRITE.
  struct SkyBytes name;
  const struct SkyArg *args;
  uint32_t n_args;
  // Geometry of each fresh output in the order of the flattened returns; returns that alias an argument by the
  // schema are left out. Each has a storage of its own, with offset 0. For a QUERY (see SkyRecord) it may be empty.
  const struct SkyGeometry *outputs;
  uint32_t n_outputs;
  // Number of distinct input storages that an instance names.
  uint32_t n_storages;
  // Number of scalars that an instance carries.
  uint32_t n_scalars;
} SkyTemplate;

// Answer of a QUERY or a CALL. Owned by Rust; give it back with `reply_free`.
typedef struct SkyReply {
  // Geometry of every flattened output of a QUERY.
  const struct SkyGeometry *geometries;
  uint32_t n_geometries;
  // Other returned values in order (bool, int, float returns).
  const struct SkyScalar *values;
  uint32_t n_values;
  struct SkyBytes bytes;
} SkyReply;

// Counters of a session, for benchmarks and metrics.
typedef struct SkyStats {
  uint64_t ops;
  uint64_t records;
  uint64_t templates;
  uint64_t messages;
  uint64_t op_bytes_sent;
  uint64_t lane_bytes_sent;
  uint64_t bytes_received;
  uint64_t reads;
} SkyStats;

typedef void (*SkyRelease)(void *ctx);

// The client's half. Every function that appends (`define` to `send_between`) is called with the session's stream
// lock held by the calling thread; those marked *consumes the lock* return with it released, whatever they answer.
// The lock is never held across I/O. All return a SKY_* code and fill `err` if it is not SKY_OK.
typedef struct SkyClientApi {
  uint32_t abi_version;
  uint32_t size;
  void (*retain)(const struct SkySession *s);
  void (*release)(const struct SkySession *s);
  // Take the stream lock. Waits first (driving I/O) while the replay log is full. Fails when the session is dead,
  // closed or belongs to the parent of this forked process; the lock is then not held.
  uint32_t (*lock)(const struct SkySession *s, struct SkyError *err);
  // Release it; flushes when the flush policy says so. Never fails: an error shows at the next lock or wait.
  void (*unlock)(const struct SkySession *s);
  uint32_t (*define)(const struct SkySession *s, uint32_t slot, const struct SkyTemplate *t, struct SkyError *err);
  // `storages`: the distinct input storages, then one fresh id per output.
  uint32_t (*op)(const struct SkySession *s,
                 uint32_t slot,
                 const uint64_t *storages,
                 uint32_t n_storages,
                 const struct SkyScalar *scalars,
                 uint32_t n_scalars,
                 struct SkyError *err);
  uint32_t (*alloc)(const struct SkySession *s,
                    uint64_t storage,
                    uint64_t n_bytes,
                    uint32_t device,
                    struct SkyError *err);
  uint32_t (*resize)(const struct SkySession *s, uint64_t storage, uint64_t n_bytes, struct SkyError *err);
  uint32_t (*free)(const struct SkySession *s, const uint64_t *storages, uint32_t n, struct SkyError *err);
  // A CALL without an answer.
  uint32_t (*call)(const struct SkySession *s,
                   uint32_t method,
                   const int64_t *args,
                   uint32_t n_args,
                   struct SkyBytes payload,
                   struct SkyError *err);
  // A CALL with an answer. Consumes the lock.
  uint32_t (*ask)(const struct SkySession *s,
                  uint32_t method,
                  const int64_t *args,
                  uint32_t n_args,
                  struct SkyBytes payload,
                  struct SkyReply **reply,
                  struct SkyError *err);
  // An op whose outputs' geometry only the server knows. Consumes the lock. `storages` as in `op`; there are
  // `n_outputs` fresh ids at its end, one for each tensor that may come back (unused ones stay unused).
  uint32_t (*query)(const struct SkySession *s,
                    uint32_t slot,
                    const uint64_t *storages,
                    uint32_t n_storages,
                    uint32_t n_outputs,
                    const struct SkyScalar *scalars,
                    uint32_t n_scalars,
                    struct SkyReply **reply,
                    struct SkyError *err);
  void (*reply_free)(struct SkyReply *reply);
  // Read a tensor (slot is a READ template) into `dst`. Consumes the lock and waits.
  uint32_t (*read)(const struct SkySession *s,
                   uint32_t slot,
                   uint64_t storage,
                   uint8_t *dst,
                   uint64_t n_bytes,
                   struct SkyError *err);
  // Write `src` into a tensor (slot is a WRITE template). Consumes the lock. Up to 4 MiB it is copied and the call
  // returns at once; above, with `release` null, it returns on the server's acknowledgement; with `release` the
  // bytes are borrowed until `release(ctx)` is called, once, from any thread (also when the call fails).
  uint32_t (*write)(const struct SkySession *s,
                    uint32_t slot,
                    uint64_t storage,
                    const uint8_t *src,
                    uint64_t n_bytes,
                    SkyRelease release,
                    void *ctx,
                    struct SkyError *err);
  // Copy between two sessions, server to server. Copies that follow each other on both streams travel together: see
  // client/gather.rs. Both locks are held and stay held. `src_slot` is a READ template,
  // `dst_slot` a WRITE template, of the same byte count and SKY_LAYOUT.
  uint32_t (*send_between)(const struct SkySession *src,
                           uint32_t src_slot,
                           uint64_t src_storage,
                           const struct SkySession *dst,
                           uint32_t dst_slot,
                           uint64_t dst_storage,
                           uint64_t n_bytes,
                           struct SkyError *err);
  // `can` is 1 when `src`'s server can reach `dst`'s, else 0 (asked once, then remembered). Takes locks itself and
  // may wait.
  uint32_t (*can_send)(const struct SkySession *src, const struct SkySession *dst, uint32_t *can, struct SkyError *err);
  // Hand everything to the socket without waiting for the server. No lock held.
  void (*flush)(const struct SkySession *s);
  void (*stats)(const struct SkySession *s, struct SkyStats *out);
  // Template slots of this session: the server may grant fewer than there are.
  uint32_t (*slots)(const struct SkySession *s);
} SkyClientApi;

// One decoded, structurally valid record. Whether ids exist and geometry fits is the executor's to check (INV-5).
// Pointers live until the next `next` on the same session.
typedef struct SkyRecord {
  uint8_t kind;
  // Position of the record in the session, from 1.
  uint64_t sequence;
  // Template slot (DEFINE, OP, QUERY, READ, WRITE).
  uint32_t slot;
  // DEFINE only.
  const struct SkyTemplate *template_def;
  // OP, QUERY: inputs then outputs. FREE, WRITE_LANE, SEND: the ids. Others: the one id.
  const uint64_t *storages;
  uint32_t n_storages;
  // QUERY: how many of `storages`, at the end, are outputs.
  uint32_t n_outputs;
  const struct SkyScalar *scalars;
  uint32_t n_scalars;
  struct SkyBytes payload;
  // READ, QUERY, CALL: answer to this number, 0 = none is wanted.
  uint64_t request;
  // WRITE_LANE.
  uint64_t transfer;
  // ALLOC, RESIZE, WRITE_LANE, SEND: bytes.
  uint64_t n_bytes;
  // ALLOC: device number.
  uint32_t device;
  // CALL.
  uint32_t method;
  const int64_t *args;
  uint32_t n_args;
  // WRITE_LANE, SEND: the template slot of each of `storages`.
  const uint32_t *slots;
} SkyRecord;

// The records of one message.
typedef struct SkyBatch {
  const struct SkyRecord *records;
  uint32_t n_records;
} SkyBatch;

// Where lane bytes land; implemented in C++ (host memory, or pinned slabs and a copy stream). Called on lane threads.
typedef struct SkyLandingApi {
  void *ctx;
  // A new transfer of `n_bytes`. Returns null if memory is not to be had (the transfer is refused).
  void *(*begin)(void *ctx, uint64_t transfer, uint64_t n_bytes);
  // Where to put the bytes at `offset`: sets `*capacity` to how many fit there (>= 1) and returns the address;
  // may wait for a free slab. Null: the transfer is dead.
  uint8_t *(*window)(void *landing, uint64_t offset, uint64_t *capacity);
  // `n` bytes at `offset` are in place (in the window last returned).
  void (*commit)(void *landing, uint64_t offset, uint64_t n);
  // All bytes are there (`code` SKY_OK), or the transfer will never end. The landing belongs to C++ from here on.
  void (*finish)(void *landing, uint32_t code);
} SkyLandingApi;

// The server's half. `next`, `reply*`, `send` and `session_close` are called by the executor thread only.
typedef struct SkyServerApi {
  uint32_t abi_version;
  uint32_t size;
  void (*set_landing)(const struct SkyServer *server, const struct SkyLandingApi *landing);
  // Wait for the next session. SKY_OK, SKY_ERR_TIMEOUT, or SKY_ERR_SESSION_CLOSED when the server is stopping.
  uint32_t (*accept)(const struct SkyServer *server,
                     uint32_t timeout_ms,
                     struct SkyServerSession **out,
                     struct SkyError *err);
  // The next message's records; drives the connection while it waits. Acknowledges the previous batch.
  // SKY_OK, SKY_ERR_TIMEOUT (no message yet), anything else: the session is over.
  uint32_t (*next)(struct SkyServerSession *s, uint32_t timeout_ms, struct SkyBatch *out, struct SkyError *err);
  // Answer a READ with all its bytes. May be called in pieces: `total` is the whole, the pieces come in order;
  // waits for flow control, so that `data` may be reused when it returns. SKY_ERR_INTERRUPTED: the connection broke
  // between two pieces; give them again from the first one.
  uint32_t (*reply_bytes)(struct SkyServerSession *s,
                          uint64_t request,
                          uint64_t total,
                          const uint8_t *data,
                          uint64_t n,
                          struct SkyError *err);
  // Answer a QUERY or CALL.
  uint32_t (*reply)(struct SkyServerSession *s, uint64_t request, const struct SkyReply *reply, struct SkyError *err);
  // Answer any request with an error: code is SKY_ERR_*, message UTF-8.
  uint32_t (*reply_error)(struct SkyServerSession *s,
                          uint64_t request,
                          uint32_t code,
                          struct SkyBytes message,
                          struct SkyError *err);
  // Send bytes, which lie in pieces, to another server as the SEND record's `payload` says; waits until they are
  // acknowledged. No piece: tell the other server that they will not come.
  uint32_t (*send)(struct SkyServerSession *s,
                   struct SkyBytes target,
                   const struct SkyBytes *pieces,
                   uint32_t n_pieces,
                   struct SkyError *err);
  // 1 if a lane can be opened to the address in a PROBE's payload.
  uint32_t (*probe)(struct SkyServerSession *s, struct SkyBytes address);
  // True once the session's lanes can bring nothing more (peer gone, session closed): stop waiting at a fence.
  uint32_t (*session_dead)(const struct SkyServerSession *s);
  // End the session: code SKY_OK after a clean close, else what is told to the client. Frees `s`.
  void (*session_close)(struct SkyServerSession *s, uint32_t code, struct SkyBytes message);
} SkyServerApi;

#endif  /* SKYTORCH_WIRE_H */
