// Package views holds the read models: answers about groups, deployments and
// alerts that are kept up to date as events apply, so that a question costs as
// much as its answer and never as much as the fleet or its history.
//
// Everything here is a function of the decided state, and of nothing else. A
// robot is what it adds to the views: a part. When an event may have changed a
// robot, its old part is taken away and its new one is added, in whichever
// groups, deployment and alerts it counts. So there is one rule for every view,
// and a view built anew from the state must equal the one kept up to date; a
// test compares them after every event of random runs. The exception are turns,
// which tell who keeps an answer when it is out of date.
//
// Views implements replica.Observer, and so changes under the replica's write
// lock. Whoever reads it does so inside replica.View and is then at exactly the
// state's event. What it hands out is a copy and may be kept.
//
// The package is pure: no clock, randomness, I/O, goroutines or locks. It imports
// consensus/event and fleet and mesh/ident; node composes it, faces show it.
//
// Bounds: one part and one turn for each node, one entry for each group, for each deployment
// that is some robot's newest, for each alert that holds now.
package views
