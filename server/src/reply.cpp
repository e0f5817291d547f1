// Fills SkyReply.
#include "reply.h"

namespace skytorch::server {
namespace {

void send_reply(Session& session, uint64_t request, const SkyReply& reply) {
  if (request == 0) return;
  SkyError error{};
  session.api.reply(session.connection, request, &reply, &error);
}

}  // namespace

void reply_error(Session& session, uint64_t request, const Cause& cause) {
  if (request == 0) return;
  SkyError error{};
  session.api.reply_error(session.connection, request, cause.code, as_bytes(cause.message), &error);
}

void reply_ok(Session& session, uint64_t request, const std::vector<SkyScalar>& values, SkyBytes bytes) {
  SkyReply reply{};
  reply.values = values.data();
  reply.n_values = static_cast<uint32_t>(values.size());
  reply.bytes = bytes;
  send_reply(session, request, reply);
}

SkyScalar int_value(int64_t value) {
  SkyScalar scalar{};
  scalar.kind = SKY_SCALAR_INT;
  scalar.integer = value;
  return scalar;
}

SkyScalar float_value(double value) {
  SkyScalar scalar{};
  scalar.kind = SKY_SCALAR_FLOAT;
  scalar.real = value;
  return scalar;
}

void QueryReply::add(GeometryRef geometry, uint8_t flags) {
  SkyGeometry wire{};
  wire.dtype = static_cast<uint8_t>(geometry->dtype);
  wire.ndim = static_cast<uint8_t>(geometry->sizes.size());
  wire.flags =
      static_cast<uint8_t>(flags | (geometry->conj ? SKY_GEOMETRY_CONJ : 0) | (geometry->neg ? SKY_GEOMETRY_NEG : 0));
  wire.offset = geometry->offset;
  wire.sizes = geometry->sizes.data();
  wire.strides = geometry->strides.data();
  geometries_.push_back(wire);
  owners_.push_back(std::move(geometry));
}

void QueryReply::add_undefined(uint8_t flags) {
  SkyGeometry wire{};
  wire.dtype = SKY_DTYPE_UNDEFINED;
  wire.flags = flags;
  geometries_.push_back(wire);
}

void QueryReply::add(const c10::IValue& value) {
  SkyScalar scalar{};
  if (value.isBool()) {
    scalar.kind = SKY_SCALAR_BOOL;
    scalar.integer = value.toBool() ? 1 : 0;
  } else if (value.isInt()) {
    scalar = int_value(value.toInt());
  } else if (value.isDouble()) {
    scalar = float_value(value.toDouble());
  } else if (value.isComplexDouble()) {
    scalar.kind = SKY_SCALAR_COMPLEX;
    scalar.real = value.toComplexDouble().real();
    scalar.imag = value.toComplexDouble().imag();
  } else {
    throw Failure(SKY_ERR_NOT_SUPPORTED, "the operator returned a " + value.tagKind() + ", which cannot travel");
  }
  values_.push_back(scalar);
}

void QueryReply::send(Session& session, uint64_t request) const {
  SkyReply reply{};
  reply.geometries = geometries_.data();
  reply.n_geometries = static_cast<uint32_t>(geometries_.size());
  reply.values = values_.data();
  reply.n_values = static_cast<uint32_t>(values_.size());
  send_reply(session, request, reply);
}

}  // namespace skytorch::server
