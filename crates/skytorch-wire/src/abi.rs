//! The C ABI that `skytorch-wire` offers to the two C++ rooms: types only. cbindgen turns this file into
//! `include/skytorch/wire.h`, which is committed and diffed by a test.
//!
//! It is the single door between Rust and C++. C++ never parses bytes: every record, template and reply crosses
//! here as a plain struct that the codec has already validated. Rust never sees a tensor.
//!
//! The subtle thing is ownership: every pointer handed *to* C++ is valid until the next call on the same object
//! that the field names; every pointer handed *by* C++ is only read during the call, unless a `release` function
//! comes with it.
#![allow(missing_docs)]

use std::ffi::c_void;

/// Raised whenever a struct or a function in this file changes shape. C++ refuses a table of another version.
pub const SKY_ABI_VERSION: u32 = 3;

/// Longest error message that crosses the ABI, in bytes, the terminating zero included.
pub const SKY_MESSAGE_BYTES: usize = 4096;

// ---------------------------------------------------------------------------------------------------------------
// Error codes: one catalogue. The same numbers are `skytorch.v1.ErrorCode` in the proto and the Python classes.
// ---------------------------------------------------------------------------------------------------------------
pub const SKY_OK: u32 = 0;
pub const SKY_ERR_INTERNAL: u32 = 1;
pub const SKY_ERR_INVALID_ARGUMENT: u32 = 2;
pub const SKY_ERR_UNREACHABLE: u32 = 3;
pub const SKY_ERR_CONNECTION_LOST: u32 = 4;
pub const SKY_ERR_UNAUTHENTICATED: u32 = 5;
pub const SKY_ERR_SERVER_BUSY: u32 = 6;
pub const SKY_ERR_VERSION_MISMATCH: u32 = 7;
pub const SKY_ERR_NOT_SUPPORTED: u32 = 8;
pub const SKY_ERR_PROTOCOL: u32 = 9;
pub const SKY_ERR_LIMIT_EXCEEDED: u32 = 10;
pub const SKY_ERR_SESSION_CLOSED: u32 = 11;
pub const SKY_ERR_FORKED: u32 = 12;
pub const SKY_ERR_INTERRUPTED: u32 = 13;
pub const SKY_ERR_TIMEOUT: u32 = 14;
pub const SKY_ERR_DEVICE_NOT_FOUND: u32 = 15;
// Failures of an operator on the server keep torch's own type.
pub const SKY_ERR_OP_RUNTIME: u32 = 32;
pub const SKY_ERR_OP_INDEX: u32 = 33;
pub const SKY_ERR_OP_VALUE: u32 = 34;
pub const SKY_ERR_OP_TYPE: u32 = 35;
pub const SKY_ERR_OP_NOT_IMPLEMENTED: u32 = 36;
pub const SKY_ERR_OP_OUT_OF_MEMORY: u32 = 37;
pub const SKY_ERR_OP_LINALG: u32 = 38;

/// Filled by a function that returned something other than `SKY_OK`. `message` is UTF-8, zero-terminated.
#[repr(C)]
pub struct SkyError {
    pub code: u32,
    pub message: [u8; SKY_MESSAGE_BYTES],
}

/// Borrowed bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SkyBytes {
    pub data: *const u8,
    pub size: u64,
}

// ---------------------------------------------------------------------------------------------------------------
// Values
// ---------------------------------------------------------------------------------------------------------------
pub const SKY_SCALAR_INT: u8 = 0;
pub const SKY_SCALAR_FLOAT: u8 = 1;
pub const SKY_SCALAR_COMPLEX: u8 = 2;
pub const SKY_SCALAR_BOOL: u8 = 3;

/// A number that travels with an op instance and not in its template. `integer` for INT and BOOL, `real` (and
/// `imag`) for FLOAT and COMPLEX.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SkyScalar {
    pub kind: u8,
    pub integer: i64,
    pub real: f64,
    pub imag: f64,
}

/// dtype byte of an output that the operator returns undefined (an optional gradient).
pub const SKY_DTYPE_UNDEFINED: u8 = 255;
pub const SKY_GEOMETRY_CONJ: u8 = 1;
pub const SKY_GEOMETRY_NEG: u8 = 2;
/// Set on an output that the operator's schema returns as one Tensor of a list (outputs are flattened in order).
pub const SKY_GEOMETRY_IN_LIST: u8 = 4;

/// Where a tensor lies in its storage. `offset` and `strides` count elements. `dtype` is c10::ScalarType's number
/// (the table is in docs/wire.md). At most 64 dimensions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SkyGeometry {
    pub dtype: u8,
    pub ndim: u8,
    pub flags: u8,
    pub offset: i64,
    pub sizes: *const i64,
    pub strides: *const i64,
}

// Argument kinds of a template, in preorder: a LIST of `count` is followed by its `count` elements.
pub const SKY_ARG_NONE: u8 = 0;
/// A tensor on the device: `integer` is its index among the instance's *input storages*, `geometry` its place there.
pub const SKY_ARG_TENSOR: u8 = 1;
/// A 0-dim CPU tensor whose value is the instance's next scalar; `integer` is its dtype, `flag` 1 = wrapped number.
pub const SKY_ARG_CPU_SCALAR: u8 = 2;
pub const SKY_ARG_INT: u8 = 3;
pub const SKY_ARG_BOOL: u8 = 4;
/// Constant double in `real`.
pub const SKY_ARG_DOUBLE: u8 = 5;
/// A double that is the instance's next scalar.
pub const SKY_ARG_DOUBLE_SLOT: u8 = 6;
/// An at::Scalar that is the instance's next scalar (its kind is part of the template: `integer`, SKY_SCALAR_*).
pub const SKY_ARG_SCALAR_SLOT: u8 = 7;
/// Constant at::Scalar: `flag` is SKY_SCALAR_*, the value is in integer/real/imag.
pub const SKY_ARG_SCALAR: u8 = 8;
/// UTF-8 in `bytes`.
pub const SKY_ARG_STRING: u8 = 9;
/// int64 little-endian array in `bytes` (`count` elements).
pub const SKY_ARG_INT_LIST: u8 = 10;
/// f64 array in `bytes` (`count` elements).
pub const SKY_ARG_DOUBLE_LIST: u8 = 11;
/// one byte each in `bytes` (`count` elements).
pub const SKY_ARG_BOOL_LIST: u8 = 12;
/// `integer` is c10::ScalarType.
pub const SKY_ARG_DTYPE: u8 = 13;
/// `integer` is c10::Layout.
pub const SKY_ARG_LAYOUT: u8 = 14;
/// `integer` is c10::MemoryFormat.
pub const SKY_ARG_MEMORY_FORMAT: u8 = 15;
/// `integer` is the server's device number (its position in the handshake's device list).
pub const SKY_ARG_DEVICE: u8 = 16;
/// A generator: the instance's next scalar is its id as INT (0 = the device's default generator).
pub const SKY_ARG_GENERATOR: u8 = 17;
/// `count` elements follow (Tensor?[], Tensor[], Scalar[], ...). `flag` 1: the elements are optional.
pub const SKY_ARG_LIST: u8 = 18;

/// One argument of a template. Unused fields are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SkyArg {
    pub kind: u8,
    pub flag: u8,
    pub count: u32,
    pub integer: i64,
    pub real: f64,
    pub imag: f64,
    pub bytes: SkyBytes,
    pub geometry: SkyGeometry,
}

// Template kinds.
pub const SKY_TEMPLATE_OP: u8 = 0;
/// Read one tensor back: args[0] is its geometry. `layout` below says how the bytes lie.
pub const SKY_TEMPLATE_READ: u8 = 1;
/// Write bytes into one tensor: args[0] is its geometry.
pub const SKY_TEMPLATE_WRITE: u8 = 2;

/// Bytes of a READ or WRITE are the tensor's elements in logical (row-major) order.
pub const SKY_LAYOUT_LOGICAL: u8 = 0;
/// The tensor is non-overlapping and dense; the bytes are its span of the storage, in memory order.
pub const SKY_LAYOUT_MEMORY: u8 = 1;

/// What an op key stands for. Sent once per slot; a later template in the same slot replaces it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SkyTemplate {
    pub kind: u8,
    pub layout: u8,
    /// Number of the server's device on which the op runs and its outputs live.
    pub device: u8,
    /// "aten::add.Tensor" (overload after the dot, none: "aten::relu"). Empty for READ and WRITE.
    pub name: SkyBytes,
    pub args: *const SkyArg,
    pub n_args: u32,
    /// Geometry of each fresh output in the order of the flattened returns; returns that alias an argument by the
    /// schema are left out. Each has a storage of its own, with offset 0. For a QUERY (see SkyRecord) it may be empty.
    pub outputs: *const SkyGeometry,
    pub n_outputs: u32,
    /// Number of distinct input storages that an instance names.
    pub n_storages: u32,
    /// Number of scalars that an instance carries.
    pub n_scalars: u32,
}

// ---------------------------------------------------------------------------------------------------------------
// Control methods of CALL records: the op stream's context and questions. Arguments and answers are int64 unless
// said otherwise. A method marked (r) answers.
// ---------------------------------------------------------------------------------------------------------------
/// key, value: process-wide torch flags; keys are SKY_CONTEXT_*.
pub const SKY_CALL_CONTEXT: u32 = 1;
/// generator id, device, seed: create it if it is new, seed it.
pub const SKY_CALL_GENERATOR_SEED: u32 = 2;
/// generator id, device (r): bytes = get_state().
pub const SKY_CALL_GENERATOR_GET_STATE: u32 = 3;
/// generator id, device; payload = state bytes.
pub const SKY_CALL_GENERATOR_SET_STATE: u32 = 4;
/// generator id: drop it.
pub const SKY_CALL_GENERATOR_FREE: u32 = 5;
/// device (r): everything before it has run. Raises a poison that nobody has read (see also SKY_CALL_TAKE_POISON).
pub const SKY_CALL_SYNCHRONIZE: u32 = 6;
/// event id, device: record.
pub const SKY_CALL_EVENT_RECORD: u32 = 7;
/// event id (r): synchronise with it.
pub const SKY_CALL_EVENT_SYNCHRONIZE: u32 = 8;
/// event a, event b (r): values[0] = elapsed ms (float).
pub const SKY_CALL_EVENT_ELAPSED: u32 = 9;
/// event id: drop it.
pub const SKY_CALL_EVENT_FREE: u32 = 10;
/// device (r): values = allocated, max allocated, reserved, max reserved, free, total bytes.
pub const SKY_CALL_MEMORY_STATS: u32 = 11;
/// device: reset the peaks.
pub const SKY_CALL_MEMORY_RESET_PEAK: u32 = 12;
/// device: give cached memory back.
pub const SKY_CALL_EMPTY_CACHE: u32 = 13;
/// (r): the first poison that nobody has read, as an error; OK when there is none.
pub const SKY_CALL_TAKE_POISON: u32 = 14;
/// payload = a lane address (r): values[0] = 1 if this server can open a lane to it.
pub const SKY_CALL_PROBE: u32 = 15;
/// payload = where the program issued the records to come, named in their errors; empty: it does not say.
pub const SKY_CALL_ORIGIN: u32 = 16;

pub const SKY_CONTEXT_DETERMINISTIC: i64 = 1; // 0 off, 1 on, 2 on with warnings only
pub const SKY_CONTEXT_MATMUL_PRECISION: i64 = 2; // 0 highest, 1 high, 2 medium
pub const SKY_CONTEXT_NUM_THREADS: i64 = 3;
pub const SKY_CONTEXT_CUDNN_BENCHMARK: i64 = 4;
pub const SKY_CONTEXT_CUDNN_DETERMINISTIC: i64 = 5;
pub const SKY_CONTEXT_CUDNN_TF32: i64 = 6;
pub const SKY_CONTEXT_CUBLAS_TF32: i64 = 7;
pub const SKY_CONTEXT_FLUSH_DENORMAL: i64 = 8;
/// torch.get_default_dtype() as c10::ScalarType: it decides what an integer tensor and a float make.
pub const SKY_CONTEXT_DEFAULT_DTYPE: i64 = 9;

/// Answer of a QUERY or a CALL. Owned by Rust; give it back with `reply_free`.
#[repr(C)]
pub struct SkyReply {
    /// Geometry of every flattened output of a QUERY.
    pub geometries: *const SkyGeometry,
    pub n_geometries: u32,
    /// Other returned values in order (bool, int, float returns).
    pub values: *const SkyScalar,
    pub n_values: u32,
    pub bytes: SkyBytes,
}

// ---------------------------------------------------------------------------------------------------------------
// Client
// ---------------------------------------------------------------------------------------------------------------
/// A client session; reference counted (`retain`, `release`).
pub struct SkySession {
    _private: [u8; 0],
}

/// Counters of a session, for benchmarks and metrics.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SkyStats {
    pub ops: u64,
    pub records: u64,
    pub templates: u64,
    pub messages: u64,
    pub op_bytes_sent: u64,
    pub lane_bytes_sent: u64,
    pub bytes_received: u64,
    pub reads: u64,
}

pub type SkyRelease = Option<unsafe extern "C" fn(ctx: *mut c_void)>;

/// The client's half. Every function that appends (`define` to `send_between`) is called with the session's stream
/// lock held by the calling thread; those marked *consumes the lock* return with it released, whatever they answer.
/// The lock is never held across I/O. All return a SKY_* code and fill `err` if it is not SKY_OK.
#[repr(C)]
pub struct SkyClientApi {
    pub abi_version: u32,
    pub size: u32,
    pub retain: unsafe extern "C" fn(s: *const SkySession),
    pub release: unsafe extern "C" fn(s: *const SkySession),
    /// Take the stream lock. Waits first (driving I/O) while the replay log is full. Fails when the session is dead,
    /// closed or belongs to the parent of this forked process; the lock is then not held.
    pub lock: unsafe extern "C" fn(s: *const SkySession, err: *mut SkyError) -> u32,
    /// Release it; flushes when the flush policy says so. Never fails: an error shows at the next lock or wait.
    pub unlock: unsafe extern "C" fn(s: *const SkySession),
    pub define:
        unsafe extern "C" fn(s: *const SkySession, slot: u32, t: *const SkyTemplate, err: *mut SkyError) -> u32,
    /// `storages`: the distinct input storages, then one fresh id per output.
    pub op: unsafe extern "C" fn(
        s: *const SkySession,
        slot: u32,
        storages: *const u64,
        n_storages: u32,
        scalars: *const SkyScalar,
        n_scalars: u32,
        err: *mut SkyError,
    ) -> u32,
    pub alloc: unsafe extern "C" fn(
        s: *const SkySession,
        storage: u64,
        n_bytes: u64,
        device: u32,
        err: *mut SkyError,
    ) -> u32,
    pub resize: unsafe extern "C" fn(s: *const SkySession, storage: u64, n_bytes: u64, err: *mut SkyError) -> u32,
    pub free: unsafe extern "C" fn(s: *const SkySession, storages: *const u64, n: u32, err: *mut SkyError) -> u32,
    /// A CALL without an answer.
    pub call: unsafe extern "C" fn(
        s: *const SkySession,
        method: u32,
        args: *const i64,
        n_args: u32,
        payload: SkyBytes,
        err: *mut SkyError,
    ) -> u32,
    /// A CALL with an answer. Consumes the lock.
    pub ask: unsafe extern "C" fn(
        s: *const SkySession,
        method: u32,
        args: *const i64,
        n_args: u32,
        payload: SkyBytes,
        reply: *mut *mut SkyReply,
        err: *mut SkyError,
    ) -> u32,
    /// An op whose outputs' geometry only the server knows. Consumes the lock. `storages` as in `op`; there are
    /// `n_outputs` fresh ids at its end, one for each tensor that may come back (unused ones stay unused).
    pub query: unsafe extern "C" fn(
        s: *const SkySession,
        slot: u32,
        storages: *const u64,
        n_storages: u32,
        n_outputs: u32,
        scalars: *const SkyScalar,
        n_scalars: u32,
        reply: *mut *mut SkyReply,
        err: *mut SkyError,
    ) -> u32,
    pub reply_free: unsafe extern "C" fn(reply: *mut SkyReply),
    /// Read a tensor (slot is a READ template) into `dst`. Consumes the lock and waits.
    pub read: unsafe extern "C" fn(
        s: *const SkySession,
        slot: u32,
        storage: u64,
        dst: *mut u8,
        n_bytes: u64,
        err: *mut SkyError,
    ) -> u32,
    /// Write `src` into a tensor (slot is a WRITE template). Consumes the lock. Up to 4 MiB it is copied and the call
    /// returns at once; above, with `release` null, it returns on the server's acknowledgement; with `release` the
    /// bytes are borrowed until `release(ctx)` is called, once, from any thread (also when the call fails).
    pub write: unsafe extern "C" fn(
        s: *const SkySession,
        slot: u32,
        storage: u64,
        src: *const u8,
        n_bytes: u64,
        release: SkyRelease,
        ctx: *mut c_void,
        err: *mut SkyError,
    ) -> u32,
    /// Copy between two sessions, server to server. Copies that follow each other on both streams travel together: see
    /// client/gather.rs. Both locks are held and stay held. `src_slot` is a READ template,
    /// `dst_slot` a WRITE template, of the same byte count and SKY_LAYOUT.
    pub send_between: unsafe extern "C" fn(
        src: *const SkySession,
        src_slot: u32,
        src_storage: u64,
        dst: *const SkySession,
        dst_slot: u32,
        dst_storage: u64,
        n_bytes: u64,
        err: *mut SkyError,
    ) -> u32,
    /// `can` is 1 when `src`'s server can reach `dst`'s, else 0 (asked once, then remembered). Takes locks itself and
    /// may wait.
    pub can_send: unsafe extern "C" fn(
        src: *const SkySession,
        dst: *const SkySession,
        can: *mut u32,
        err: *mut SkyError,
    ) -> u32,
    /// Hand everything to the socket without waiting for the server. No lock held.
    pub flush: unsafe extern "C" fn(s: *const SkySession),
    pub stats: unsafe extern "C" fn(s: *const SkySession, out: *mut SkyStats),
    /// Template slots of this session: the server may grant fewer than there are.
    pub slots: unsafe extern "C" fn(s: *const SkySession) -> u32,
}

// ---------------------------------------------------------------------------------------------------------------
// Server
// ---------------------------------------------------------------------------------------------------------------
pub const SKY_RECORD_DEFINE: u8 = 1;
pub const SKY_RECORD_OP: u8 = 2;
pub const SKY_RECORD_FREE: u8 = 3;
pub const SKY_RECORD_ALLOC: u8 = 4;
pub const SKY_RECORD_RESIZE: u8 = 5;
/// Write whose bytes are in `payload`.
pub const SKY_RECORD_WRITE: u8 = 6;
/// Write whose bytes come over a lane as transfer `transfer` of `n_bytes`: the fence of INV-1. Of several tensors the
/// bytes come one after those of another, and then a byte for each: 1, or 0 if its bytes are not its value.
pub const SKY_RECORD_WRITE_LANE: u8 = 7;
pub const SKY_RECORD_READ: u8 = 8;
/// An op that answers `request` with the geometry of its outputs.
pub const SKY_RECORD_QUERY: u8 = 9;
/// Control: `method`, `args`, `payload`; answers `request` unless that is 0.
pub const SKY_RECORD_CALL: u8 = 10;
/// Send tensors (READ templates) to another server, as a WRITE_LANE takes them: hand `payload` (opaque) and the bytes to
/// `SkyServerApi::send`.
pub const SKY_RECORD_SEND: u8 = 11;

/// One decoded, structurally valid record. Whether ids exist and geometry fits is the executor's to check (INV-5).
/// Pointers live until the next `next` on the same session.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SkyRecord {
    pub kind: u8,
    /// Position of the record in the session, from 1.
    pub sequence: u64,
    /// Template slot (DEFINE, OP, QUERY, READ, WRITE).
    pub slot: u32,
    /// DEFINE only.
    pub template_def: *const SkyTemplate,
    /// OP, QUERY: inputs then outputs. FREE, WRITE_LANE, SEND: the ids. Others: the one id.
    pub storages: *const u64,
    pub n_storages: u32,
    /// QUERY: how many of `storages`, at the end, are outputs.
    pub n_outputs: u32,
    pub scalars: *const SkyScalar,
    pub n_scalars: u32,
    pub payload: SkyBytes,
    /// READ, QUERY, CALL: answer to this number, 0 = none is wanted.
    pub request: u64,
    /// WRITE_LANE.
    pub transfer: u64,
    /// ALLOC, RESIZE, WRITE_LANE, SEND: bytes.
    pub n_bytes: u64,
    /// ALLOC: device number.
    pub device: u32,
    /// CALL.
    pub method: u32,
    pub args: *const i64,
    pub n_args: u32,
    /// WRITE_LANE, SEND: the template slot of each of `storages`.
    pub slots: *const u32,
}

/// The records of one message.
#[repr(C)]
pub struct SkyBatch {
    pub records: *const SkyRecord,
    pub n_records: u32,
}

/// The listening server (owned by Python through `skytorch._wire.Server`).
pub struct SkyServer {
    _private: [u8; 0],
}

/// One accepted session, owned by the executor until `session_close`.
pub struct SkyServerSession {
    _private: [u8; 0],
}

/// Where lane bytes land; implemented in C++ (host memory, or pinned slabs and a copy stream). Called on lane threads.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SkyLandingApi {
    pub ctx: *mut c_void,
    /// A new transfer of `n_bytes`. Returns null if memory is not to be had (the transfer is refused).
    pub begin: Option<unsafe extern "C" fn(ctx: *mut c_void, transfer: u64, n_bytes: u64) -> *mut c_void>,
    /// Where to put the bytes at `offset`: sets `*capacity` to how many fit there (>= 1) and returns the address;
    /// may wait for a free slab. Null: the transfer is dead.
    pub window: Option<unsafe extern "C" fn(landing: *mut c_void, offset: u64, capacity: *mut u64) -> *mut u8>,
    /// `n` bytes at `offset` are in place (in the window last returned).
    pub commit: Option<unsafe extern "C" fn(landing: *mut c_void, offset: u64, n: u64)>,
    /// All bytes are there (`code` SKY_OK), or the transfer will never end. The landing belongs to C++ from here on.
    pub finish: Option<unsafe extern "C" fn(landing: *mut c_void, code: u32)>,
}

/// The server's half. `next`, `reply*`, `send` and `session_close` are called by the executor thread only.
#[repr(C)]
pub struct SkyServerApi {
    pub abi_version: u32,
    pub size: u32,
    pub set_landing: unsafe extern "C" fn(server: *const SkyServer, landing: *const SkyLandingApi),
    /// Wait for the next session. SKY_OK, SKY_ERR_TIMEOUT, or SKY_ERR_SESSION_CLOSED when the server is stopping.
    pub accept: unsafe extern "C" fn(
        server: *const SkyServer,
        timeout_ms: u32,
        out: *mut *mut SkyServerSession,
        err: *mut SkyError,
    ) -> u32,
    /// The next message's records; drives the connection while it waits. Acknowledges the previous batch.
    /// SKY_OK, SKY_ERR_TIMEOUT (no message yet), anything else: the session is over.
    pub next: unsafe extern "C" fn(
        s: *mut SkyServerSession,
        timeout_ms: u32,
        out: *mut SkyBatch,
        err: *mut SkyError,
    ) -> u32,
    /// Answer a READ with all its bytes. May be called in pieces: `total` is the whole, the pieces come in order;
    /// waits for flow control, so that `data` may be reused when it returns. SKY_ERR_INTERRUPTED: the connection broke
    /// between two pieces; give them again from the first one.
    pub reply_bytes: unsafe extern "C" fn(
        s: *mut SkyServerSession,
        request: u64,
        total: u64,
        data: *const u8,
        n: u64,
        err: *mut SkyError,
    ) -> u32,
    /// Answer a QUERY or CALL.
    pub reply: unsafe extern "C" fn(
        s: *mut SkyServerSession,
        request: u64,
        reply: *const SkyReply,
        err: *mut SkyError,
    ) -> u32,
    /// Answer any request with an error: code is SKY_ERR_*, message UTF-8.
    pub reply_error: unsafe extern "C" fn(
        s: *mut SkyServerSession,
        request: u64,
        code: u32,
        message: SkyBytes,
        err: *mut SkyError,
    ) -> u32,
    /// Send bytes, which lie in pieces, to another server as the SEND record's `payload` says; waits until they are
    /// acknowledged. No piece: tell the other server that they will not come.
    pub send: unsafe extern "C" fn(
        s: *mut SkyServerSession,
        target: SkyBytes,
        pieces: *const SkyBytes,
        n_pieces: u32,
        err: *mut SkyError,
    ) -> u32,
    /// 1 if a lane can be opened to the address in a PROBE's payload.
    pub probe: unsafe extern "C" fn(s: *mut SkyServerSession, address: SkyBytes) -> u32,
    /// True once the session's lanes can bring nothing more (peer gone, session closed): stop waiting at a fence.
    pub session_dead: unsafe extern "C" fn(s: *const SkyServerSession) -> u32,
    /// End the session: code SKY_OK after a clean close, else what is told to the client. Frees `s`.
    pub session_close: unsafe extern "C" fn(s: *mut SkyServerSession, code: u32, message: SkyBytes),
}
