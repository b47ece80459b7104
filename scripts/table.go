package scripts

// edges is every import between packages of the module, with its reason. Words
// (event, wire, ident) ← pure cores ← shells ← faces (gateway, console) ← node ←
// sim, commands. A shell that needs another shell declares an interface of its
// own; node hands the other one in. A row here is the exception that was thought
// about.
var edges = []Edge{
	// mesh
	{"mesh/link", "mesh/ident", "streams are bound to node keys and certificates"},
	{"mesh/link", "mesh/wire", "hello/1 is one framed message each way"},
	{"mesh/join", "mesh/ident", "credentials, certificates and endpoints are its subject"},
	{"mesh/join", "mesh/wire", "join/1 is framed messages"},
	{"mesh/join", "mesh/link", "the one protocol that is open to strangers needs the stream's remote key"},
	{"mesh/presence", "mesh/ident", "reports are about nodes"},
	{"mesh/presence", "mesh/wire", "batches are framed messages"},
	{"mesh/keyring", "mesh/ident", "key files are replaced durably"},
	{"mesh/keyring", "mesh/wire", "keys/1 is framed messages"},
	{"mesh/member", "mesh/ident", "members are nodes; their metadata is signed"},
	{"mesh/member", "mesh/keyring", "gossip is encrypted with the ring's keys and follows its changes"},
	{"mesh/discover", "mesh/ident", "what is announced and found are endpoints"},

	// consensus
	{"consensus/event", "mesh/ident", "streams and producers are named by node ids"},
	{"consensus/fleet", "consensus/event", "the state is what the events add up to"},
	{"consensus/fleet", "mesh/ident", "nodes and robots are named by node ids"},
	{"consensus/fleet/fleettest", "consensus/event", "makes random batches, for the tests of everything that holds a state"},
	{"consensus/fleet/fleettest", "mesh/ident", "makes random nodes"},
	{"consensus/history", "consensus/event", "segments hold events and cursors"},
	{"consensus/history", "mesh/ident", "small files are replaced durably"},
	{"consensus/replica", "consensus/event", "entries are batches of events"},
	{"consensus/replica", "consensus/fleet", "the state it keeps"},
	{"consensus/replica", "consensus/history", "the history it keeps beside the state"},
	{"consensus/replica", "mesh/ident", "small files are replaced durably; producers are node ids"},
	{"consensus/raftgroup", "consensus/event", "batches go in, receipts and faults come out"},
	{"consensus/raftgroup", "consensus/replica", "the entry's encoding and its outcomes belong to the replica"},
	{"consensus/raftgroup", "mesh/ident", "raft addresses are node ids"},
	{"consensus/raftgroup/testnet", "mesh/ident", "its hosts are named by node ids"},
	{"consensus/follow", "consensus/event", "a child says with its cursor where it stands"},
	{"consensus/follow", "consensus/history", "what is followed are the history's records"},
	{"consensus/follow", "consensus/replica", "a damaged snapshot is told from a failing disk by the replica's errors"},
	{"consensus/follow", "mesh/ident", "parents, children and marks are named by node ids"},
	{"consensus/follow", "mesh/wire", "follow/1 is framed messages"},
	{"consensus/propose", "consensus/event", "drafts go in, receipts and faults come out"},
	{"consensus/propose", "consensus/replica", "a proposal's outcome is the replica's word"},
	{"consensus/propose", "mesh/ident", "proposals are forwarded between nodes"},
	{"consensus/propose", "mesh/wire", "propose/1 is framed messages"},
	{"consensus/admission", "consensus/event", "to admit is to propose an event"},
	{"consensus/admission", "consensus/fleet", "tokens, enrolments and revocations are in the state"},
	{"consensus/admission", "mesh/ident", "it issues certificates"},
	{"consensus/admission", "mesh/join", "it is the authority behind join/1"},
	{"consensus/admission", "mesh/wire", "requests are forwarded to the leader as framed messages"},
	{"consensus/control", "consensus/event", "controllers propose events"},
	{"consensus/control", "consensus/fleet", "controllers decide on the state"},
	{"consensus/control", "mesh/ident", "controllers speak of nodes"},

	// faces
	{"node/gateway/view", "agent/telemetry", "a robot's row shows its newest sample"},
	{"node/gateway/view", "consensus/event", "events and cursors are shown as they are"},
	{"node/gateway/view", "mesh/ident", "rows are named by node ids"},
	{"node/gateway/auth", "consensus/event", "a verified token becomes an event's actor"},
	{"node/gateway/auth", "mesh/ident", "voters sign person tokens with their node keys"},
	{"node/gateway/auth", "mesh/wire", "an issuer far away is asked in framed messages"},
	{"node/gateway/auth", "node/gateway/view", "answers and problems have one form"},
	{"node/gateway/rest", "consensus/event", "drafts come in, faults become problems"},
	{"node/gateway/rest", "mesh/ident", "robots are found by node id"},
	{"node/gateway/rest", "node/gateway/auth", "who asks, and what they may"},
	{"node/gateway/rest", "node/gateway/view", "answers and problems have one form"},
	{"node/gateway/ws", "mesh/ident", "the fleet's own pages are told by node addresses"},
	{"node/gateway/ws", "node/gateway/auth", "the first message proves who watches"},
	{"node/gateway/ws", "node/gateway/view", "snapshot and deltas have the form of the answers"},
	{"node/gateway", "mesh/ident", "it serves one node, named by its id"},
	{"node/gateway", "node/gateway/...", "the gateway is what its parts are put together to"},
	{"node/client", "mesh/ident", "a person signs with a key"},
	{"node/client", "node/gateway/view", "the client reads what the gateway writes"},

	// node and commands
	{"node", "console", "the composer gives the console to the face"},
	{"node", "agent/...", "the only composer"},
	{"node", "consensus/...", "the only composer"},
	{"node", "mesh/...", "the only composer"},
	{"node", "node/...", "the only composer"},
	{"node/survey", "agent/telemetry", "joins the sources of a robot's row: its sample"},
	{"node/survey", "consensus/event", "joins the sources of a robot's row: the cursor"},
	{"node/survey", "consensus/fleet", "joins the sources of a robot's row: the decided state"},
	{"node/survey", "mesh/ident", "joins the sources of a robot's row: by node id"},
	{"node/survey", "mesh/member", "joins the sources of a robot's row: who is alive"},
	{"node/survey", "mesh/presence", "joins the sources of a robot's row: newest reports"},
	{"node/survey", "node/gateway/view", "joins the sources of a robot's row: into this"},
	{"node/config", "consensus/event", "a name is accepted here exactly when the log accepts it"},
	{"node/config", "mesh/ident", "asking that needs a well-formed id"},
	{"node/doctor", "mesh/ident", "checks the node's key"},
	{"node/cmd/skein", "consensus/event", "prints events and builds drafts"},
	{"node/cmd/skein", "mesh/ident", "reads keys, tokens and fleet files"},
	{"node/cmd/skein", "mesh/join", "a refusal to join has its own exit code and words"},
	{"node/cmd/skein", "node/...", "the command's parts: composer, settings, client, doctor"},

	{"node/cmd/skein", "sim/live", "`skein dev` is a command for everybody, not a test"},

	// sim and benchmarks: whole nodes from outside
	{"sim/live", "mesh/ident", "its nodes have keys"},
	{"sim/live", "node", "runs whole nodes in one process"},
	{"sim/live", "node/...", "settings, data directories and client of these nodes"},
	{"sim/trial", "mesh/ident", "tells robots apart by node id"},
	{"sim/trial", "node/client", "asks the programs on trial as anybody would"},
	{"sim/trial", "node/gateway/view", "reads their answers"},
	{"sim/trial", "sim/rig", "the LAN the trial is on"},
	{"scripts/bench/...", "scripts/benchjson", "figures are printed in one form"},
	{"scripts/bench/...", "sim/...", "fleets are measured on a LAN of their own"},
}

// pure are the packages whose output depends on their arguments alone.
var pure = []Pure{
	{"consensus/event", "the same batch must be valid or not on every node"},
	{"consensus/fleet", "every node must reach the same state from the same events"},
}

// banned are packages that nobody may import.
var banned = []Ban{
	{"expvar", "its registry is one per process and many nodes share a process; use the node's metrics set"},
	{"net/http/pprof", "it registers itself with the default mux, which all nodes of a process share; build the handlers where they are wanted"},
	{"github.com/armon/go-metrics/...", "its sink is one per process; leave the metrics of hashicorp's libraries alone"},
	{"github.com/hashicorp/go-metrics/...", "its sink is one per process; leave the metrics of hashicorp's libraries alone"},
	{"encoding/json/v2", "an experiment of this Go version; use encoding/json"},
}

// withoutDesign are packages that need no DESIGN.md of their own.
var withoutDesign = []Exception{
	{"consensus/fleet/fleettest", "a helper of tests; consensus/fleet/DESIGN.md speaks of it"},
	{"consensus/raftgroup/testnet", "a helper of tests; consensus/raftgroup/DESIGN.md speaks of it"},
	{"scripts/bench/...", "each program's comment says what it measures, and how"},
	{"scripts/benchjson", "a few lines; scripts/DESIGN.md speaks of it"},
	{"scripts/testrun", "a few lines; scripts/DESIGN.md speaks of it"},
}

// topLevel is what may stand in the root folder, besides dotfiles.
var topLevel = []string{
	"agent/", "bin/", "console/", "consensus/", "mesh/", "node/", "scripts/", "sim/",
	"CHANGELOG.md", "LICENSE", "Makefile", "README.md", "go.mod", "go.sum",
}
