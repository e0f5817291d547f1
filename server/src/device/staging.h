// Moves bytes between the network and a device through rings of pinned slabs, one ring per direction, so that the
// network, the bus and the compute overlap. Knows order, not CUDA: see copy_engine.h. `write` and `read` belong to
// the executor thread, landings to lane threads.
#pragma once

#include <condition_variable>

#include "copy_engine.h"
#include "device.h"

namespace skytorch::server {

// Slabs that are handed out, filled or drained by a copy, and handed out again when that copy is done.
class SlabRing {
 public:
  SlabRing(CopyEngine& engine, uint64_t slab_bytes, uint32_t n_slabs);
  struct Slab {
    at::DataPtr memory;
    TicketRef busy;  // the copy that last used it
    uint8_t* data() const { return static_cast<uint8_t*>(memory.get()); }
  };
  // Goes back to its ring when it is let go, also by an exception.
  struct GiveBack {
    SlabRing* ring = nullptr;
    void operator()(Slab* slab) const { ring->give(std::unique_ptr<Slab>(slab)); }
  };
  using SlabRef = std::unique_ptr<Slab, GiveBack>;
  // Waits for a slab, then for the copy that last used it. Null when `*stop` is set meanwhile (see `wake`).
  SlabRef take(const std::atomic<bool>* stop = nullptr);
  void wake();
  uint64_t slab_bytes() const { return slab_bytes_; }

 private:
  void give(std::unique_ptr<Slab> slab);

  CopyEngine& engine_;
  const uint64_t slab_bytes_;
  uint32_t unmade_;  // slabs are allocated when first needed
  std::mutex mutex_;
  std::condition_variable freed_;
  std::deque<std::unique_ptr<Slab>> free_;
};

class Staging : public std::enable_shared_from_this<Staging> {
 public:
  Staging(std::unique_ptr<CopyEngine> engine, uint64_t slab_bytes, uint32_t n_slabs);
  void write(void* dst, const uint8_t* src, uint64_t n);
  bool read(const void* src, uint64_t n, const ByteSink& sink);
  std::shared_ptr<Landing> make_landing(uint64_t n_bytes);

 private:
  friend class StagedLanding;
  std::unique_ptr<CopyEngine> engine_;
  SlabRing in_;
  SlabRing out_;
};

}  // namespace skytorch::server
