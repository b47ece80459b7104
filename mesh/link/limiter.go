package link

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// visitors bounds what unverified peers may do: how often each address may
// begin something and how many things may be under way, for each address and in
// all. It remembers at most maxAddrs addresses, least recently seen forgotten
// first. Loopback addresses are bound only by the total: all nodes of a
// development fleet share them.
type visitors struct {
	perSecond rate.Limit
	burst     int
	maxEach   int
	maxTotal  int
	maxAddrs  int

	mu     sync.Mutex
	total  int
	recent list.List // of *visitor, most recent first
	byAddr map[netip.Addr]*list.Element
}

type visitor struct {
	addr   netip.Addr
	bucket *rate.Limiter
	active int
}

func newVisitors(perSecond rate.Limit, burst, maxEach, maxTotal, maxAddrs int) *visitors {
	return &visitors{
		perSecond: perSecond, burst: burst, maxEach: maxEach, maxTotal: maxTotal, maxAddrs: maxAddrs,
		byAddr: make(map[netip.Addr]*list.Element),
	}
}

// enter asks to begin something. The returned leave must be called once when it
// has ended; it is nil if the answer is no.
func (v *visitors) enter(addr netip.Addr, now time.Time) (leave func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.total >= v.maxTotal {
		return nil
	}
	addr = visitorKey(addr)
	if addr.IsLoopback() {
		v.total++
		return sync.OnceFunc(func() { v.leave(nil) })
	}
	who := v.find(addr)
	if who == nil || who.active >= v.maxEach || !who.bucket.AllowN(now, 1) {
		return nil
	}
	who.active++
	v.total++
	return sync.OnceFunc(func() { v.leave(who) })
}

func (v *visitors) leave(who *visitor) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.total--
	if who != nil {
		who.active--
	}
}

// find returns the record of addr, making room for a new one by forgetting the
// least recent that has nothing under way; nil if all have.
func (v *visitors) find(addr netip.Addr) *visitor {
	if e := v.byAddr[addr]; e != nil {
		v.recent.MoveToFront(e)
		return e.Value.(*visitor)
	}
	if len(v.byAddr) >= v.maxAddrs && !v.forgetOne() {
		return nil
	}
	who := &visitor{addr: addr, bucket: rate.NewLimiter(v.perSecond, v.burst)}
	v.byAddr[addr] = v.recent.PushFront(who)
	return who
}

func (v *visitors) forgetOne() bool {
	for e := v.recent.Back(); e != nil; e = e.Prev() {
		if who := e.Value.(*visitor); who.active == 0 {
			delete(v.byAddr, who.addr)
			v.recent.Remove(e)
			return true
		}
	}
	return false
}

// visitorKey is what counts as one address: an IPv4 address, or the /64 of an
// IPv6 address, because a host may take any number of addresses within it.
func visitorKey(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() || addr.IsLoopback() {
		return addr
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return addr
	}
	return prefix.Addr()
}
