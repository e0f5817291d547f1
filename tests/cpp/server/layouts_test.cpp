// INV-5: sparse tensors, whose kernels go where the indices say. What a client sends as one is refused unless its
// components make a tensor; what comes back is components that fit their storages.
#include <gtest/gtest.h>

#include "fake_wire.h"

namespace skytorch::server::test {
namespace {

Arg layout_arg(at::Layout value) {
  Arg arg = none();
  arg.arg.kind = SKY_ARG_LAYOUT;
  arg.arg.integer = static_cast<int64_t>(value);
  return arg;
}

Shape shape_of(const at::Tensor& t) { return shape(t.sizes().vec(), t.scalar_type()); }

// The arguments of one COO tensor over storages `first` and `first + 1`.
std::vector<Arg> coo(const at::Tensor& indices, const at::Tensor& values, std::vector<int64_t> sizes,
                     bool coalesced = false, int64_t first = 0) {
  return {list(5),
          layout_arg(at::kSparse),
          ints(sizes),
          boolean(coalesced),
          tensor(first, shape_of(indices)),
          tensor(first + 1, shape_of(values))};
}

std::vector<Arg> csr(const std::vector<at::Tensor>& parts, std::vector<int64_t> sizes,
                     at::Layout which = at::kSparseCsr) {
  return {list(5),
          layout_arg(which),
          ints(sizes),
          tensor(0, shape_of(parts[0])),
          tensor(1, shape_of(parts[1])),
          tensor(2, shape_of(parts[2]))};
}

Answer ask(const std::string& name, const std::vector<at::Tensor>& inputs, std::vector<Arg> args,
           const std::vector<Arg>& more = {}, std::vector<SkyScalar> scalars = {}) {
  args.insert(args.end(), more.begin(), more.end());
  Script script;
  std::vector<uint64_t> ids;
  for (size_t i = 0; i < inputs.size(); ++i) {
    ids.push_back(i + 1);
    script.put(i + 1, inputs[i]);
  }
  constexpr uint32_t kOutputs = 6;
  for (uint64_t id = 100; id < 100 + kOutputs; ++id) ids.push_back(id);
  const auto request = script.query(script.define(SKY_TEMPLATE_OP, name, args), ids, kOutputs, std::move(scalars));
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  return server.answer(request);
}

const at::Tensor indices = longs({0, 1, 1, 2, 0, 0}).reshape({2, 3});
const at::Tensor values = at::ones({3});

TEST(Layouts, AnAnswerSaysWhatItsComponentsMake) {
  const Answer got = ask("aten::_coalesce", {indices, values}, coo(indices, values, {3, 4}));
  ASSERT_EQ(got.code, SKY_OK) << got.message;
  ASSERT_EQ(got.geometries.size(), 2U);
  std::vector<int64_t> said;
  for (const SkyScalar& value : got.values) said.push_back(value.integer);
  EXPECT_EQ(said, (std::vector<int64_t>{static_cast<int64_t>(at::kSparse), 2, 3, 4, 1}));
}

TEST(Layouts, AWrittenSparseTensorComesBackWhole) {
  const Answer got = ask("aten::mul_.Tensor", {indices, values}, coo(indices, values, {3, 4}),
                         {cpu_scalar(at::kFloat)}, {number(2.0)});
  ASSERT_EQ(got.code, SKY_OK) << got.message;
  EXPECT_EQ(got.geometries.size(), 2U);
}

TEST(Layouts, WhatDoesNotMakeATensorIsRefused) {
  const auto coalesce = [](const at::Tensor& i, const at::Tensor& v, std::vector<int64_t> sizes, bool claim = false) {
    return ask("aten::_coalesce", {i, v}, coo(i, v, sizes, claim)).code;
  };
  EXPECT_EQ(coalesce(indices, values, {3, 4}), SKY_OK);
  EXPECT_NE(coalesce(indices, values, {1, 4}), SKY_OK);        // an index outside
  EXPECT_NE(coalesce(indices - 1, values, {3, 4}), SKY_OK);    // a negative one
  EXPECT_NE(coalesce(indices, values, {3, 4}, true), SKY_OK);  // not sorted
  EXPECT_NE(coalesce(indices, values, {3}), SKY_OK);           // another number of dimensions
  EXPECT_NE(coalesce(indices, values, {3, 4, 5}), SKY_OK);
  EXPECT_NE(coalesce(indices, at::ones({4}), {3, 4}), SKY_OK);  // more values than indices
  EXPECT_NE(coalesce(indices, at::ones({2}), {3, 4}), SKY_OK);
  EXPECT_NE(coalesce(indices.to(at::kInt), values, {3, 4}), SKY_OK);
  EXPECT_NE(coalesce(indices.flatten(), values, {3, 4}), SKY_OK);
  EXPECT_NE(coalesce(indices, values, {-3, 4}), SKY_OK);
  EXPECT_NE(coalesce(indices, values, {INT64_MAX, INT64_MAX}), SKY_OK);
  EXPECT_NE(coalesce(at::ones({0, 3}, at::kLong), values, {}), SKY_ERR_INTERNAL);
}

TEST(Layouts, CompressedIndicesAreLookedAt) {
  const at::Tensor rows = longs({0, 1, 3}), columns = longs({1, 0, 2});
  const auto dense = [](std::vector<at::Tensor> parts, std::vector<int64_t> sizes,
                        at::Layout which = at::kSparseCsr) {
    return ask("aten::_to_dense", parts, csr(parts, sizes, which), {none(), none()}).code;
  };
  EXPECT_EQ(dense({rows, columns, values}, {2, 3}), SKY_OK);
  EXPECT_NE(dense({rows, longs({1, 0, 3}), values}, {2, 3}), SKY_OK);
  EXPECT_NE(dense({rows, longs({1, 2, 0}), values}, {2, 3}), SKY_OK);  // not sorted within a row
  EXPECT_NE(dense({longs({0, 1, 4}), columns, values}, {2, 3}), SKY_OK);
  EXPECT_NE(dense({longs({0, 5, 3}), columns, values}, {2, 3}), SKY_OK);
  EXPECT_NE(dense({rows, columns, values}, {3, 3}), SKY_OK);
  EXPECT_NE(dense({rows, columns, at::ones({2})}, {2, 3}), SKY_OK);
  EXPECT_NE(dense({rows, columns, values}, {2, 3}, at::kSparseBsr), SKY_OK);
  EXPECT_NE(dense({rows, columns.to(at::kInt), values}, {2, 3}), SKY_OK);
}

TEST(Layouts, OtherKindsInTheirPlace) {
  const std::vector<at::Tensor> inputs = {indices, values};
  EXPECT_NE(ask("aten::_coalesce", {}, {list(0)}).code, SKY_OK);
  EXPECT_NE(ask("aten::_coalesce", {}, {list(1), layout_arg(at::kSparse)}).code, SKY_OK);
  std::vector<Arg> swapped = coo(indices, values, {3, 4});
  std::swap(swapped[2], swapped[3]);
  EXPECT_NE(ask("aten::_coalesce", inputs, swapped).code, SKY_OK);
  for (const at::Layout which : {at::kStrided, at::kMkldnn, at::kJagged}) {
    std::vector<Arg> other = coo(indices, values, {3, 4});
    other[1] = layout_arg(which);
    EXPECT_NE(ask("aten::_coalesce", inputs, other).code, SKY_OK);
  }
  std::vector<Arg> undefined = coo(indices, values, {3, 4});
  undefined[5] = none();
  EXPECT_NE(ask("aten::_coalesce", {indices}, undefined).code, SKY_OK);
}

TEST(Layouts, KernelsForDenseTensorsDoNotGetOthers) {
  const Answer got = ask("aten::exp", {indices, values}, coo(indices, values, {3, 4}));
  EXPECT_EQ(got.code, SKY_ERR_OP_NOT_IMPLEMENTED) << got.message;
  EXPECT_EQ(ask("aten::_sparse_softmax", {values}, {tensor(0, shape_of(values))}, {integer(0), boolean(false)}).code,
            SKY_ERR_NOT_SUPPORTED);
  EXPECT_EQ(ask("aten::_sparse_coo_tensor_with_dims", {}, {integer(1), integer(0), ints({3})},
                {none(), layout_arg(at::kSparse), none(), none()})
                .code,
            SKY_ERR_NOT_SUPPORTED);
}

// Each of these ends the process without its guard.
TEST(Layouts, KernelsThatBelieveTheirSizes) {
  const std::vector<at::Tensor> blocks = {longs({0, 1}), longs({0}), at::ones({1, 2, 2})};
  EXPECT_EQ(ask("aten::_sparse_csr_sum.dim_dtype", blocks, csr(blocks, {2, 2}, at::kSparseBsr),
                {ints({0}), boolean(true), none()})
                .code,
            SKY_ERR_INVALID_ARGUMENT);
  // Where the maxima came from: nowhere, and beyond the values.
  for (const at::Tensor& positions : {at::empty({0}, at::kLong), at::full({2, 2}, 5, at::kLong)}) {
    const std::vector<at::Tensor> matrix = {longs({0, 1, 2}), longs({0, 1}), at::ones({2}), at::ones({2, 2}),
                                            positions};
    const Arg dense = tensor(3, shape({2, 2}));
    EXPECT_EQ(ask("aten::_sparse_mm_reduce_impl_backward", matrix, csr(matrix, {2, 2}),
                  {dense, dense, text("amax"), tensor(4, shape_of(positions)), bools({true, true})})
                  .code,
              SKY_ERR_INVALID_ARGUMENT);
  }
  const std::vector<at::Tensor> batch = {longs({0, 1, 2, 0, 1, 2}).reshape({2, 3}),
                                         longs({0, 1, 1, 0}).reshape({2, 2}), at::ones({2, 2}), at::ones({2, 2})};
  EXPECT_EQ(ask("aten::triangular_solve.X", batch, {tensor(3, shape({2, 2}))},
                [&] {
                  std::vector<Arg> args = csr(batch, {2, 2, 2});
                  const std::vector<Arg> rest = {boolean(true), boolean(false), boolean(false),
                                                 tensor(3, shape({2, 2})), tensor(3, shape({2, 2}))};
                  args.insert(args.end(), rest.begin(), rest.end());
                  return args;
                }())
                .code,
            SKY_ERR_INVALID_ARGUMENT);
}

TEST(Layouts, WritingToOneHasToBeAQuery) {
  Script script;
  script.put(1, indices);
  script.put(2, values);
  std::vector<Arg> args = coo(indices, values, {3, 4});
  args.push_back(cpu_scalar(at::kFloat));
  script.op(script.define(SKY_TEMPLATE_OP, "aten::mul_.Tensor", args), {1, 2}, {number(2.0)});
  const auto poison = script.call(SKY_CALL_TAKE_POISON, {});
  const auto untouched = script.get(2, shape({3}));
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  EXPECT_EQ(server.answer(poison).code, SKY_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(server.answer(untouched).code, SKY_OK);
}

}  // namespace
}  // namespace skytorch::server::test
