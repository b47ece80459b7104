// Package rig gives a test a LAN of its own: several hosts, each a Linux network
// namespace with its own address, interfaces and data directory, joined by a
// bridge. The programs under test are real processes over real sockets, so what
// a test does to them is what happens in a house: a cable is pulled, a switch
// stops forwarding, an address changes, a machine dies.
//
//	r := rig.New(t, 8)
//	skein := rig.Skein(t)
//	for _, h := range r.Hosts {
//		h.Start(skein, "run", "--config", h.WriteFile("skein.toml", settings))
//	}
//	rig.Wait(t, 5*time.Second, "host 1 sees eight robots", func() error {
//		return r.Hosts[0].GetJSON("http://127.0.0.1:7780/api/v1/robots", &robots)
//	})
//	r.Hosts[2].Kill()
//	r.Split(r.Hosts[:3], r.Hosts[3:])
//
// The bridge is in a namespace of its own. Nothing is attached to the machine's
// own network: no host can reach outside, and nothing outside can reach a host
// except through Host.Do, Host.Dial and Host.Client.
//
// Methods of Rig, Host and Process belong to the goroutine of the test: they
// fail the test themselves (t.Fatalf), which is why they return no errors.
// Everything is removed when the test ends. What a killed test left behind is
// removed by the next New on the machine: see leftover.go.
//
// A rig needs Linux, root, ip (iproute2) and nft (nftables). Without them New
// skips the test and names what is missing; with SKEIN_NO_SKIP=1 it fails.
//
// Only tests and benchmarks may import rig. It knows nothing of Skein except,
// in Skein, how to build the program.
package rig
