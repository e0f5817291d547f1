// INV-5: operators whose kernels believe what they are told, called as torch itself never calls them. Each of these
// reads or writes outside of a storage, divides by zero or never ends, unless its guard (src/guards) refuses it.
#include <gtest/gtest.h>
#include <torch/version.h>

#include <cmath>

#include "fake_wire.h"

namespace skytorch::server::test {
namespace {

// An operator with arguments that are refused. Storage n of `inputs` is argument tensor(n, ...).
struct Call {
  std::string name;
  std::vector<at::Tensor> inputs;
  std::vector<Arg> args;
};

Arg input(int64_t storage, const at::Tensor& t) { return tensor(storage, shape(t.sizes().vec(), t.scalar_type())); }

// What asking for the operator's outputs is answered.
Answer ask(const Call& call) {
  Script script;
  std::vector<uint64_t> ids;
  for (size_t i = 0; i < call.inputs.size(); ++i) {
    ids.push_back(i + 1);
    script.put(i + 1, call.inputs[i]);
  }
  constexpr uint32_t kOutputs = 8;
  for (uint64_t id = 100; id < 100 + kOutputs; ++id) ids.push_back(id);
  const auto request = script.query(script.define(SKY_TEMPLATE_OP, call.name, call.args), ids, kOutputs);
  FakeServer server;
  EXPECT_EQ(server.run(script), SKY_OK) << server.close_message();
  return server.answer(request);
}

void expect_refused(const std::vector<Call>& calls) {
  for (const Call& call : calls) {
    const Answer got = ask(call);
    EXPECT_EQ(got.code, SKY_ERR_INVALID_ARGUMENT) << call.name << ": " << got.message;
    EXPECT_NE(got.message.find("does not run with these arguments"), std::string::npos) << got.message;
  }
}

const at::Tensor four = at::ones({4}), matrix = at::ones({2, 3}), image = at::ones({1, 2, 4, 4});
TEST(Guards, DimensionsOfATransform) {
  const Arg x = input(0, matrix), z = input(0, matrix.to(at::kComplexFloat));
  expect_refused(
      {{"aten::_fft_r2c", {matrix}, {x, ints({INT64_MIN}), integer(0), boolean(true)}},
       {"aten::_fft_r2c", {matrix}, {x, ints({}), integer(0), boolean(true)}},
       {"aten::_fft_r2c", {matrix}, {x, ints({1, -1}), integer(0), boolean(true)}},
       {"aten::_fft_r2c", {matrix}, {x, ints({1}), integer(255), boolean(true)}},
       {"aten::_fft_c2c", {matrix.to(at::kComplexFloat)}, {z, ints({7}), integer(0), boolean(true)}},
       {"aten::_fft_c2r", {matrix.to(at::kComplexFloat)}, {z, ints({1}), integer(0), integer(INT64_MAX)}}});
  EXPECT_EQ(ask({"aten::_fft_r2c", {matrix}, {x, ints({-1}), integer(0), boolean(true)}}).code, SKY_OK);
}

TEST(Guards, GradientsOfAnotherSize) {
  const at::Tensor small = at::ones({1, 2, 1, 1});
  const Arg g = input(0, small), x = input(1, image);
  expect_refused(
      {{"aten::reflection_pad2d_backward", {small, image}, {g, x, ints({})}},
       {"aten::reflection_pad2d_backward", {small, image}, {g, x, ints({1, 1, 1, 1})}},
       {"aten::replication_pad2d_backward", {small, image}, {g, x, ints({3, 255, 7, 255})}},
       {"aten::_adaptive_avg_pool2d_backward", {matrix, image}, {input(0, matrix), x}},
       {"aten::gelu_backward", {four, matrix}, {input(0, four), input(1, matrix), text("none")}},
       {"aten::_softmax_backward_data",
        {four, matrix},
        {input(0, four), input(1, matrix), integer(0), dtype_arg(at::kFloat)}},
       {"aten::_pdist_backward", {four, matrix, four}, {input(0, four), input(1, matrix), real(1), input(2, four)}},
       {"aten::_cdist_backward",
        {matrix, matrix, matrix, matrix},
        {input(0, matrix), input(1, matrix), input(2, matrix), real(1), input(3, matrix)}}});
}

TEST(Guards, AttentionAndImagesOfAnotherSize) {
  const at::Tensor q = at::ones({1, 2, 2, 1}), v = at::ones({1, 1, 1, 1, 1, 1});
  const Arg a = input(0, q), b = input(1, v);
  const at::Tensor whole = at::ones({1, 1, 4, 4}, at::kLong);
  const Arg w = input(0, whole);
  expect_refused({{"aten::_scaled_dot_product_flash_attention_for_cpu_backward",
                   {q, v},
                   {a, a, a, b, a, b, real(0), boolean(false), none(), none()}},
                  {"aten::_upsample_bilinear2d_aa",
                   {image},
                   {input(0, image), ints({3, 2}), boolean(false), real(1), real(1e30)}},
                  {"aten::_masked_softmax",
                   {at::ones({0}), at::ones({0}, at::kBool)},
                   {input(0, at::ones({0})), input(1, at::ones({0}, at::kBool)), none(), integer(-5)}},
                  {"aten::smooth_l1_loss_backward", {whole}, {w, w, w, integer(0), real(0.5)}}});
}

TEST(Guards, ScalesThatAreNotThoseOfTheOutput) {
  const auto shrink = [&](double scale) {
    return Call{"aten::_upsample_bilinear2d_aa",
                {image},
                {input(0, image), ints({3, 3}), boolean(false), real(scale), real(0.9)}};
  };
  expect_refused({shrink(1e-9), shrink(1e9), shrink(-1)});
  EXPECT_EQ(ask(shrink(5)).code, SKY_OK);
}

TEST(Guards, SegmentsOutsideOfTheData) {
  const auto reduce = [&](std::vector<int64_t> values, bool borders, int64_t axis = 0) {
    const at::Tensor given = longs(std::move(values));
    const Arg segments = input(1, given);
    return Call{"aten::segment_reduce",
                {four, given},
                {input(0, four), text("sum"), borders ? none() : segments, none(), borders ? segments : none(),
                 integer(axis), boolean(true), none()}};
  };
  expect_refused({reduce({2, 1 << 30}, false), reduce({-1, 5}, false), reduce({0, 1 << 30}, true),
                  reduce({0, 3, 1}, true), reduce({}, true), reduce({2, 2}, false, 1),
                  reduce({INT64_MAX, INT64_MAX, 6}, false)});
  EXPECT_EQ(ask(reduce({1, 3}, false)).code, SKY_OK);
  EXPECT_EQ(ask(reduce({0, 1, 4}, true)).code, SKY_OK);
}

TEST(Guards, IndicesOutsideOfWhatTheyIndex) {
  const at::Tensor grad = at::ones({2, 3}), wild = longs({0, 1 << 30}), table = at::ones({4, 3});
  const at::Tensor pooled = at::ones({1, 2, 1, 1}), places = at::full({1, 2, 1, 1}, 1 << 30, at::kLong);
  const at::Tensor log_probs = at::zeros({5, 1, 3});
  const auto pool = [&](const char* name, std::vector<Arg> rest) {
    std::vector<Arg> args{input(0, pooled), input(1, image)};
    args.insert(args.end(), rest.begin(), rest.end());
    return Call{name, {pooled, image, places}, std::move(args)};
  };
  const auto bag = [&](const at::Tensor& indices, const at::Tensor& offsets, int64_t mode) {
    return Call{"aten::_embedding_bag_forward_only",
                {table, indices, offsets},
                {input(0, table), input(1, indices), input(2, offsets), boolean(false), integer(mode), boolean(false),
                 none(), boolean(false), integer(-1)}};
  };
  expect_refused(
      {{"aten::embedding_dense_backward",
        {grad, wild},
        {input(0, grad), input(1, wild), integer(4), integer(-1), boolean(false)}},
       pool("aten::adaptive_max_pool2d_backward", {input(2, places)}),
       pool("aten::max_pool2d_with_indices_backward",
            {ints({4}), ints({4}), ints({0}), ints({1}), boolean(false), input(2, places)}),
       pool("aten::fractional_max_pool2d_backward", {ints({4, 4}), ints({1, 1}), input(2, places)}),
       pool("aten::fractional_max_pool2d_backward", {ints({4, 4}), ints({}), input(2, places)}),
       bag(wild, longs({0}), 0),
       bag(longs({0, 1}), longs({0, 100, 2}), 0),
       bag(longs({0, 1}), longs({0}), 77),
       {"aten::_ctc_loss",
        {log_probs, wild},
        {input(0, log_probs), input(1, wild), ints({5}), ints({2}), integer(0), boolean(false)}},
       {"aten::_ctc_loss",
        {log_probs, longs({1, 2})},
        {input(0, log_probs), input(1, longs({1, 2})), ints({5}), ints({2}), integer(-2), boolean(false)}}});
}

TEST(Guards, StatisticsOfOtherChannels) {
  const at::Tensor none_at_all = at::ones({0}), empty = at::ones({0, 2});
  const auto norm = [&](const at::Tensor& x, const at::Tensor& mean) {
    return Call{"aten::native_batch_norm",
                {x, mean},
                {input(0, x), none(), none(), input(1, mean), input(1, mean), boolean(true), real(0.1), real(1e-5)}};
  };
  expect_refused({norm(image, none_at_all), norm(image, four), norm(empty, at::ones({2})), norm(four, four)});
}

TEST(Guards, ListsOfDifferentLengths) {
  const auto sgd = [](const at::Tensor& param, const at::Tensor& momentum, uint32_t n_momenta) {
    std::vector<Arg> args{list(1), input(0, param), list(1), input(1, param), list(n_momenta)};
    for (uint32_t i = 0; i < n_momenta; ++i) args.push_back(input(2, momentum));
    for (double value : {0.0, 0.9, 0.1, 0.0}) args.push_back(real(value));
    for (bool value : {false, false, false}) args.push_back(boolean(value));
    for (int i = 0; i < 2; ++i) args.push_back(none());
    return Call{"aten::_fused_sgd_", {param, param, momentum}, std::move(args)};
  };
  expect_refused({sgd(four, at::ones({1}), 1),
                  sgd(four, four, 2),
                  {"aten::_foreach_copy", {four}, {list(0), list(1), input(0, four), boolean(false)}}});
}

TEST(Guards, NumbersThatNeverEnd) {
  const at::Tensor degree = at::full({4}, 1e18), deep = at::full({1}, -1e12 + 0.5, at::kDouble);
  expect_refused(
      {{"aten::special_legendre_polynomial_p", {four, degree}, {input(0, four), input(1, degree)}},
       {"aten::polygamma", {deep}, {integer(2), input(0, deep)}},
       {"aten::random.from", {four}, {input(0, four), integer(INT64_MAX), none(), none()}},
       {"aten::adaptive_max_pool2d", {image}, {input(0, image), ints({INT64_MAX, 0})}},
       {"aten::range.step", {}, {scalar(0), scalar(3), scalar(0.5), dtype_arg(at::kChar), none(), none(), none()}}});
  const std::vector<Arg> halves{scalar(0), scalar(3), scalar(0.5), dtype_arg(at::kLong), none(), none(), none()};
  const bool divides = TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 14;
  EXPECT_EQ(ask({"aten::arange.start_step", {}, halves}).code, divides ? SKY_ERR_INVALID_ARGUMENT : SKY_OK);
}

TEST(Guards, ElementsOnTopOfEachOther) {
  Shape repeated = shape({64});
  repeated.strides = {0};
  const Call median{"aten::median.dim", {four}, {tensor(0, repeated), integer(0), boolean(false)}};
  const Call noise{"aten::rrelu_with_noise",
                   {at::ones({64}), four},
                   {input(0, at::ones({64})), tensor(1, repeated), scalar(0.1), scalar(0.3), boolean(true), none()}};
  expect_refused({median, noise});
  // An output, of any operator.
  const Answer out = ask({"aten::log_sigmoid_forward.output",
                          {at::ones({64}), at::ones({64}), four},
                          {input(0, at::ones({64})), input(1, at::ones({64})), tensor(2, repeated)}});
  EXPECT_EQ(out.code, SKY_ERR_INVALID_ARGUMENT);
  EXPECT_NE(out.message.find("on top of each other"), std::string::npos) << out.message;
}

TEST(Guards, NumbersThatAreNone) {
  const at::Tensor nan = at::full({3, 3}, NAN, at::kComplexFloat);
  expect_refused({{"aten::_linalg_eigvals", {nan}, {input(0, nan)}}});
}

// The output does not fit, so the operator gives it another size, and must not move or resize its inputs with it.
TEST(Guards, AnOutputThatIsAnInput) {
  const Arg x = input(0, matrix), y = input(0, image);
  EXPECT_EQ(ask({"aten::replication_pad2d.out", {image}, {y, ints({1, 1, 1, 2}), y}}).code, SKY_ERR_OP_RUNTIME);
  EXPECT_EQ(ask({"aten::mm.out",
                 {at::ones({2, 2})},
                 {input(0, at::ones({2, 2})), input(0, at::ones({2, 2})), input(0, at::ones({2, 2}))}})
                .code,
            SKY_OK);
  EXPECT_EQ(ask({"aten::sum.IntList_out", {matrix}, {x, ints({0}), boolean(false), none(), x}}).code,
            SKY_ERR_INTERNAL);
  const Answer two =
      ask({"aten::sort.values",
           {four},
           {input(0, four), integer(0), boolean(false), input(0, four), input(0, at::ones({2}, at::kLong))}});
  EXPECT_EQ(two.code, SKY_ERR_INVALID_ARGUMENT);
  EXPECT_NE(two.message.find("two outputs are in one storage"), std::string::npos) << two.message;
}

TEST(Guards, ATensorThatIsNotThere) {
  EXPECT_EQ(ask({"aten::copy", {four}, {none(), input(0, four), boolean(false)}}).code, SKY_ERR_INVALID_ARGUMENT);
}

TEST(Guards, OperatorsThatNoClientSends) {
  // Composed of others, a view, a change of geometry, a part of another operator, a layout.
  for (const char* name :
       {"aten::linear", "aten::view", "aten::squeeze_", "aten::_stack", "aten::mkldnn_convolution"}) {
    const Answer got = ask({name, {four}, {input(0, four)}});
    EXPECT_EQ(got.code, SKY_ERR_NOT_SUPPORTED) << name;
    EXPECT_NE(got.message.find("is not allowed"), std::string::npos) << got.message;
  }
  const Arg sparse = [] {
    Arg arg = none();
    arg.arg.kind = SKY_ARG_LAYOUT;
    arg.arg.integer = static_cast<int64_t>(at::kSparse);
    return arg;
  }();
  EXPECT_EQ(ask({"aten::zeros", {}, {ints({4}), none(), sparse, none(), none()}}).code, SKY_ERR_NOT_SUPPORTED);
}

}  // namespace
}  // namespace skytorch::server::test
