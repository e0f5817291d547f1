// Answers to requests, in the shapes of the C ABI. An answer that cannot be sent is not an error here: the connection
// is gone then, and the next look at it says so.
#pragma once

#include "session.h"

namespace skytorch::server {

void reply_error(Session& session, uint64_t request, const Cause& cause);
void reply_ok(Session& session, uint64_t request, const std::vector<SkyScalar>& values = {}, SkyBytes bytes = {});

SkyScalar int_value(int64_t value);
SkyScalar float_value(double value);

// Geometries and values of an operator's results.
class QueryReply {
 public:
  void add(GeometryRef geometry, uint8_t flags);
  void add_undefined(uint8_t flags);
  // Throws Failure for a value that cannot travel.
  void add(const c10::IValue& value);
  void add(const std::vector<SkyScalar>& values) { values_.insert(values_.end(), values.begin(), values.end()); }
  void send(Session& session, uint64_t request) const;

 private:
  std::vector<GeometryRef> owners_;  // keep sizes and strides alive
  std::vector<SkyGeometry> geometries_;
  std::vector<SkyScalar> values_;
};

}  // namespace skytorch::server
