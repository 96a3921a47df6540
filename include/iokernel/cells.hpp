// What a program says of itself in shared memory, so that it can be read while the program hangs: counters, gauges,
// histograms and markers.
#pragma once

#include <iokernel/kernel.hpp>

#include <cmath>

namespace iokernel {

namespace detail {

inline double double_of(std::uint64_t bits) noexcept {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline std::uint64_t bits_of(double value) noexcept {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline void add_double(std::uint64_t* cell, double more) noexcept {
    std::uint64_t before = __atomic_load_n(cell, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(cell, &before, bits_of(double_of(before) + more), true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {}
}

// The cells of a series: which, in a forked child, are others.
class Cells {
public:
    Cells(std::shared_ptr<KernelState> kernel, std::string spec) : kernel_(std::move(kernel)), spec_(std::move(spec)) {}

    Result<Ok> find() {
        auto handle = kernel_->handle();
        if (!handle) return std::move(handle).error();
        iok_status status = iok_cells(*handle, spec_.c_str(), &cells_, &count_);
        if (status != IOK_STATUS_OK) return last_error(status);
        return Ok{};
    }

    std::uint64_t* at(std::size_t place = 0) const noexcept { return cells_ + place; }
    std::size_t count() const noexcept { return count_; }

private:
    std::shared_ptr<KernelState> kernel_;
    std::string spec_;
    std::uint64_t* cells_ = nullptr;
    std::uint32_t count_ = 0;
};

inline Query series(std::string_view kind, std::string_view name, const Query& labels, std::string_view help) {
    Query made{{"kind", std::string(kind)}, {"name", std::string(name)}};
    if (!help.empty()) made.emplace_back("help", help);
    for (const auto& [label, value] : labels) made.emplace_back("label." + label, value);
    return made;
}

}  // namespace detail

// Counts whole numbers. Any thread; one atomic addition, no call. It survives the kernel, and forks: a child counts in
// a cell of its own, and readers see the sum.
class Counter {
public:
    void inc(std::uint64_t more = 1) noexcept { __atomic_fetch_add(cells_.at(), more, __ATOMIC_RELAXED); }

    // This process's part, which begins at any number.
    std::uint64_t value() const noexcept { return __atomic_load_n(cells_.at(), __ATOMIC_RELAXED); }

private:
    friend class Kernel;
    explicit Counter(detail::Cells cells) : cells_(std::move(cells)) {}
    detail::Cells cells_;
};

// What goes up and down. Any thread.
class Gauge {
public:
    void set(double value) noexcept { __atomic_store_n(cells_.at(), detail::bits_of(value), __ATOMIC_RELAXED); }
    void add(double more) noexcept { detail::add_double(cells_.at(), more); }
    double value() const noexcept { return detail::double_of(__atomic_load_n(cells_.at(), __ATOMIC_RELAXED)); }

private:
    friend class Kernel;
    explicit Gauge(detail::Cells cells) : cells_(std::move(cells)) {}
    detail::Cells cells_;
};

// How values are distributed. Any thread.
class Histogram {
public:
    // What is not finite is left out.
    void observe(double value) noexcept {
        if (!std::isfinite(value)) return;
        std::size_t bucket = 0;
        while (bucket < edges_.size() && value > edges_[bucket]) bucket++;
        __atomic_fetch_add(cells_.at(bucket), std::uint64_t{1}, __ATOMIC_RELAXED);
        detail::add_double(cells_.at(edges_.size() + 1), value);
    }

private:
    friend class Kernel;
    Histogram(detail::Cells cells, std::vector<double> edges) : cells_(std::move(cells)), edges_(std::move(edges)) {}
    detail::Cells cells_;
    std::vector<double> edges_;
};

inline Result<Counter> Kernel::counter(std::string_view name, const Query& labels, std::string_view help) const {
    detail::Cells cells(state_, detail::query_of(detail::series("counter", name, labels, help)));
    auto found = cells.find();
    if (!found) return std::move(found).error();
    return Counter(std::move(cells));
}

inline Result<Gauge> Kernel::gauge(std::string_view name, const Query& labels, std::string_view help) const {
    detail::Cells cells(state_, detail::query_of(detail::series("gauge", name, labels, help)));
    auto found = cells.find();
    if (!found) return std::move(found).error();
    return Gauge(std::move(cells));
}

// `buckets`: upper bounds, growing, 128 at most; without any those for times in seconds, 0.005 to 10.
inline Result<Histogram> Kernel::histogram(std::string_view name, std::vector<double> buckets, const Query& labels,
                                           std::string_view help) const {
    if (buckets.empty()) buckets = {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10};
    std::string edges;
    for (double edge : buckets) {
        char text[32];
        std::snprintf(text, sizeof text, "%.17g", edge);
        edges += (edges.empty() ? "" : ",") + std::string(text);
    }
    Query spec = detail::series("histogram", name, labels, help);
    spec.emplace_back("buckets", edges);
    detail::Cells cells(state_, detail::query_of(spec));
    auto found = cells.find();
    if (!found) return std::move(found).error();
    return Histogram(std::move(cells), std::move(buckets));
}

namespace detail {

// The slots of one thread, one for each kernel.
inline iok_markers* marker_slot(KernelState& kernel) {
    struct Entry {
        std::uint64_t kernel;
        std::uint32_t forks;
        iok_markers* slot;
    };
    static thread_local std::vector<Entry> entries;
    for (Entry& each : entries)
        if (each.kernel == kernel.id && each.forks == fork_number()) return each.slot;
    auto handle = kernel.handle();
    iok_markers* slot = nullptr;
    if (!handle || iok_marker_slot(*handle, &slot) != IOK_STATUS_OK) return nullptr;
    entries.push_back({kernel.id, fork_number(), slot});
    return slot;
}

}  // namespace detail

// What this thread is doing, for as long as the object lives: shown to whoever asks, and with each request that the
// thread submits meanwhile. Stores in shared memory, no call. A thread shows 15 at a time: what is beyond is not shown,
// and neither is what a kernel has no slot for.
class Marker {
public:
    // `text`: 56 bytes at most are shown.
    Marker(const Kernel& kernel, std::string_view text) : slot_(detail::marker_slot(*kernel.shared())) {
        if (slot_) enter(text);
    }
    Marker(const Marker&) = delete;
    Marker& operator=(const Marker&) = delete;

    ~Marker() {
        if (!place_ || place_->serial != serial_) return;
        __atomic_store_n(&place_->length, place_->length & ~active, __ATOMIC_RELEASE);
        slot_->current = around_;
    }

private:
    static constexpr std::uint32_t active = 0x80000000u, count_mask = IOK_MARKER_COUNT_MASK;

    void enter(std::string_view text) {
        std::uint32_t count = (slot_->last + 1) & count_mask;
        if (count == 0) count = 1;
        iok_marker* place = free_place(count);
        if (!place) {
            slot_->overflows++;
            return;
        }
        serial_ = slot_->last = (slot_->last & ~count_mask) | count;
        place_ = place;
        std::size_t size = fitting(text);
        __atomic_store_n(&place->serial, 0u, __ATOMIC_RELEASE);
        std::memcpy(place->text, text.data(), size);
        std::uint64_t word = serial_ | std::uint64_t{static_cast<std::uint32_t>(size) | active} << 32;
        __atomic_store_n(reinterpret_cast<std::uint64_t*>(place), word, __ATOMIC_RELEASE);
        around_ = std::exchange(slot_->current, serial_);
    }

    iok_marker* free_place(std::uint32_t count) const {
        for (std::uint32_t i = 0; i < IOK_MARKER_PLACES; i++) {
            iok_marker* place = &slot_->places[(count + i) % IOK_MARKER_PLACES];
            if (!(place->length & active)) return place;
        }
        return nullptr;
    }

    // Cut at the start of a character.
    static std::size_t fitting(std::string_view text) {
        if (text.size() <= IOK_MARKER_TEXT_BYTES) return text.size();
        std::size_t size = IOK_MARKER_TEXT_BYTES;
        while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0) == 0x80) size--;
        return size;
    }

    iok_markers* slot_;
    iok_marker* place_ = nullptr;
    std::uint32_t serial_ = 0, around_ = 0;
};

}  // namespace iokernel
