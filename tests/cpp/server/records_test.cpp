// The records one by one: what each does to storages and what it answers.
#include <gtest/gtest.h>

#include "fake_wire.h"

namespace skytorch::server::test {
namespace {

TEST(Records, AnOperatorGivesWhatTorchGives) {
  const auto x = at::rand({4, 4}), y = at::rand({4, 4});
  const Shape s = shape({4, 4});
  Script script;
  script.put(1, x);
  script.put(2, y);
  const auto add =
      script.define(kOp, "aten::add.Tensor", {tensor(0, s), tensor(1, s), scalar_slot(SKY_SCALAR_INT)}, {s});
  script.op(add, {1, 2, 3}, {number(int64_t{2})});
  script.op(add, {3, 3, 4}, {number(int64_t{1})});
  const auto relu = script.define(kOp, "aten::add_.Tensor", {tensor(0, s), tensor(1, s), scalar(0.5)});
  script.op(relu, {4, 1});
  const auto got = script.get(4, s);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  const auto z = x + 2 * y;
  EXPECT_TRUE(at::equal(server.tensor(got, s), (z + z).add_(x, 0.5)));
  EXPECT_EQ(server.stats.ops_executed.load(), 3u);
  EXPECT_EQ(server.stats.resident_bytes.load(), 0u);
}

TEST(Records, ListsAndOptionalsReachTheKernel) {
  const auto x = at::rand({2, 3}), w = at::rand({4, 3});
  const Shape sx = shape({2, 3}), sw = shape({4, 3}), sc = shape({4, 3});
  Script script;
  script.put(1, x);
  script.put(2, w);
  const auto clamp = script.define(kOp, "aten::clamp.Tensor", {tensor(0, sx), none(), tensor(1, sx)}, {sx});
  script.op(clamp, {1, 2, 3});
  const auto cat = script.define(kOp, "aten::cat", {list(2), tensor(0, sx), tensor(0, sx), integer(0)}, {sc});
  script.op(cat, {1, 4});
  const auto foreach =
      script.define(kOp, "aten::_foreach_mul_.Scalar", {list(2), tensor(0, sx), tensor(1, sw), scalar(3)});
  script.op(foreach, {1, 2});
  const auto split = script.define(kOp, "aten::split_copy.Tensor", {tensor(0, sc), integer(2), integer(0)}, {sx, sx});
  script.op(split, {4, 5, 6});
  const auto a = script.get(3, sx), b = script.get(4, sc), c = script.get(1, sx), d = script.get(6, sx);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  EXPECT_TRUE(at::equal(server.tensor(a, sx), x.clamp({}, w.narrow(0, 0, 2))));
  EXPECT_TRUE(at::equal(server.tensor(b, sc), at::cat({x, x})));
  EXPECT_TRUE(at::equal(server.tensor(c, sx), x * 3));
  EXPECT_TRUE(at::equal(server.tensor(d, sx), x));
}

TEST(Records, CpuScalarsPromoteAsPythonNumbersDo) {
  const auto x = at::arange(4, at::kInt);
  const Shape si = shape({4}, at::kInt), sf = shape({4});
  Script script;
  script.put(1, x);
  const auto wrapped = script.define(kOp, "aten::mul.Tensor", {tensor(0, si), cpu_scalar(at::kLong, true)}, {si});
  script.op(wrapped, {1, 2}, {number(int64_t{3})});
  const auto real = script.define(kOp, "aten::mul.Tensor", {tensor(0, si), cpu_scalar(at::kDouble, true)}, {sf});
  script.op(real, {1, 3}, {number(0.5)});
  const auto a = script.get(2, si), b = script.get(3, sf);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(at::equal(server.tensor(a, si), x * 3));
  EXPECT_TRUE(at::equal(server.tensor(b, sf), x * 0.5));
}

TEST(Records, ViewsOfOneStorageShareItsBytes) {
  const auto x = at::arange(16, at::kFloat).view({4, 4});
  Shape whole = shape({4, 4}), transposed = shape({4, 4}), row = shape({4});
  transposed.strides = {1, 4};
  row.offset = 4;
  Script script;
  script.put(1, x);
  const auto fill = script.define(kOp, "aten::fill_.Scalar", {tensor(0, row), scalar(7)});
  script.op(fill, {1});
  const auto clone =
      script.define(kOp, "aten::add.Scalar", {tensor(0, transposed), scalar(0), scalar(1)}, {transposed});
  script.op(clone, {1, 2});
  const auto whole_read = script.get(1, whole), logical = script.get(1, transposed),
             copied = script.get(2, transposed);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  auto expected = x.clone();
  expected[1].fill_(7);
  EXPECT_TRUE(at::equal(server.tensor(whole_read, whole), expected));
  EXPECT_TRUE(at::equal(server.tensor(logical, whole), expected.t()));
  EXPECT_TRUE(at::equal(server.tensor(copied, whole), expected.t()));
}

TEST(Records, OutputsAreLaidOutAsTheTemplateSays) {
  const auto x = at::rand({2, 3});
  const Shape s = shape({2, 3});
  Shape column = shape({2, 3});
  column.strides = {1, 2};
  Script script;
  script.put(1, x);
  script.op(script.define(kOp, "aten::neg", {tensor(0, s)}, {column}), {1, 2});
  const auto read = script.read(script.define(SKY_TEMPLATE_READ, "", {tensor(0, column)}, {}, SKY_LAYOUT_MEMORY), 2);
  // Returns its input as it is: the new id must get bytes of its own.
  script.op(script.define(kOp, "aten::lift", {tensor(0, s)}, {s}), {1, 3});
  script.op(script.define(kOp, "aten::zero_", {tensor(0, s)}), {1});
  const auto kept = script.get(3, s);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(at::equal(server.tensor(read, shape({3, 2})), (-x).t()));
  EXPECT_TRUE(at::equal(server.tensor(kept, s), x));
}

TEST(Records, ZeroTensorsGetMemory) {
  const Shape s = shape({4});
  Script script;
  const auto args = [] { return std::vector<Arg>{ints({4}), dtype_arg(at::kFloat), none(), device(0), none()}; };
  script.op(script.define(kOp, "aten::_efficientzerotensor", args(), {s}), {1});
  const auto stored = script.get(1, s);
  script.query(script.define(kOp, "aten::_efficientzerotensor", args()), {2}, 1);
  script.op(script.define(kOp, "aten::add_.Scalar", {tensor(0, s), scalar(2), scalar(1)}), {2});
  const auto queried = script.get(2, s);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(at::equal(server.tensor(stored, s), at::zeros({4})));
  EXPECT_TRUE(at::equal(server.tensor(queried, s), at::full({4}, 2.f)));
}

TEST(Records, WritesReachStridedTensors) {
  const auto x = at::rand({3, 2});
  Shape transposed = shape({3, 2});
  transposed.strides = {1, 3};
  Script script;
  script.alloc(1, 24);
  script.write(script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, transposed)}), 1, bytes_of(x));
  const auto memory = script.get(1, shape({2, 3})), logical = script.get(1, transposed);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(at::equal(server.tensor(memory, shape({2, 3})), x.t()));
  EXPECT_TRUE(at::equal(server.tensor(logical, shape({3, 2})), x));
}

TEST(Records, ConjugateBitsAreResolved) {
  const auto z = at::rand({3}, at::kComplexFloat);
  Shape plain = shape({3}, at::kComplexFloat), conj = plain;
  conj.flags = SKY_GEOMETRY_CONJ;
  Script script;
  script.put(1, z);
  const auto read = script.get(1, conj);
  script.op(script.define(kOp, "aten::mul.Tensor", {tensor(0, conj), tensor(0, plain)}, {plain}), {1, 2});
  const auto product = script.get(2, plain);
  script.write(script.define(SKY_TEMPLATE_WRITE, "", {tensor(0, conj)}), 1, bytes_of(z));
  const auto written = script.get(1, plain);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(at::equal(server.tensor(read, plain), at::conj(z).resolve_conj()));
  EXPECT_TRUE(at::allclose(server.tensor(product, plain), at::conj(z) * z));
  EXPECT_TRUE(at::equal(server.tensor(written, plain), at::conj(z).resolve_conj()));
}

TEST(Records, ResizeKeepsWhatFits) {
  const auto x = at::rand({4});
  Script script;
  script.put(1, x);
  script.resize(1, 32);
  script.op(script.define(kOp, "aten::add_.Scalar", {tensor(0, shape({4})), scalar(1), scalar(1)}), {1});
  const auto grown = script.get(1, shape({4}));
  script.resize(1, 8);
  const auto shrunk = script.get(1, shape({2})), beyond = script.get(1, shape({4}));
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  EXPECT_TRUE(at::equal(server.tensor(grown, shape({4})), x + 1));
  EXPECT_TRUE(at::equal(server.tensor(shrunk, shape({2})), (x + 1).slice(0, 0, 2)));
  EXPECT_EQ(server.answer(beyond).code, SKY_ERR_INVALID_ARGUMENT);
}

TEST(Records, QueriesAnswerGeometryAndValues) {
  const auto x = at::tensor({0.f, 2.f, 0.f, 3.f});
  const Shape s = shape({4});
  Script script;
  script.put(1, x);
  const auto nonzero = script.query(script.define(kOp, "aten::nonzero", {tensor(0, s)}), {1, 10}, 1);
  const auto indices = script.get(10, shape({2, 1}, at::kLong));
  const auto equal = script.query(script.define(kOp, "aten::equal", {tensor(0, s), tensor(0, s)}), {1}, 0);
  const auto unbind =
      script.query(script.define(kOp, "aten::unbind_copy.int", {tensor(0, s), integer(0)}), {1, 11, 12, 13, 14}, 4);
  const auto bad = script.query(script.define(kOp, "aten::mm", {tensor(0, s), tensor(0, s)}), {1, 15}, 1);
  const auto pending = script.call(SKY_CALL_TAKE_POISON, {});
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK);
  ASSERT_EQ(server.answer(nonzero).geometries.size(), 1u);
  EXPECT_EQ(server.answer(nonzero).geometries[0].sizes[0], 2);
  EXPECT_TRUE(at::equal(server.tensor(indices, shape({2, 1}, at::kLong)), x.nonzero()));
  ASSERT_EQ(server.answer(equal).values.size(), 1u);
  EXPECT_EQ(server.answer(equal).values[0].integer, 1);
  ASSERT_EQ(server.answer(unbind).geometries.size(), 4u);
  EXPECT_EQ(server.answer(unbind).geometries[3].flags, SKY_GEOMETRY_IN_LIST);
  EXPECT_EQ(server.answer(bad).code, SKY_ERR_OP_RUNTIME);
  EXPECT_EQ(server.answer(pending).code, SKY_OK) << "the failed query was its own answer";
}

}  // namespace
}  // namespace skytorch::server::test
