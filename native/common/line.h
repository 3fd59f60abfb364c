// A line of those who wait: each is linked in its own memory, and may leave from anywhere. Not for several threads.
#pragma once
#include "common/assert.h"

namespace vioctl {

// Node derives from LineLink<Node>. A node stands in one line at most.
template <typename Node>
class Line;

template <typename Node>
class LineLink {
 private:
  friend class Line<Node>;
  Node* before_ = nullptr;
  Node* behind_ = nullptr;
  bool linked_ = false;
};

template <typename Node>
class Line {
 public:
  // Who is next; nullptr if nobody waits.
  Node* first() const { return first_; }

  static bool Holds(const Node& node) { return Link(node).linked_; }

  void Push(Node& node) {
    VIOCTL_ASSERT(!Holds(node));
    Link(node).linked_ = true;
    Link(node).before_ = last_;
    Link(node).behind_ = nullptr;
    (last_ ? Link(*last_).behind_ : first_) = &node;
    last_ = &node;
  }

  void Remove(Node& node) {
    VIOCTL_ASSERT(Holds(node));
    LineLink<Node>& link = Link(node);
    (link.before_ ? Link(*link.before_).behind_ : first_) = link.behind_;
    (link.behind_ ? Link(*link.behind_).before_ : last_) = link.before_;
    link.before_ = link.behind_ = nullptr;
    link.linked_ = false;
  }

 private:
  static LineLink<Node>& Link(Node& node) { return node; }
  static const LineLink<Node>& Link(const Node& node) { return node; }

  Node* first_ = nullptr;
  Node* last_ = nullptr;
};

}  // namespace vioctl
