package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestIdentifyTellsWhoListens(t *testing.T) {
	f := newFleet(t)
	a, b := f.member(), f.member()
	got, err := a.Identify(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.Port()))
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != b.ID() || got.LinkPort != b.Port() || !got.Valid() {
		t.Fatalf("got %+v, want an endpoint of %s", got, b.ID())
	}
}

func TestIdentifyOfSomethingElseEnds(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	a := newFleet(t).member()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := a.Identify(ctx, netip.MustParseAddrPort(mute.Addr().String())); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v, want ErrUnreachable", err)
	}
}
