// Package fault names the moments at which a test can have a master killed, to
// see what is left by one that died right there. Builds without the tag
// baton_fault, which are all but those of that test, hold nothing of it.
package fault

// Moments of a deploy, in their order. Those of an upgrade that begin with "new"
// are the new master's.
var Moments = []string{
	"reload: ready", "reload: committed",
	"old: probed", "old: asked to hand over", "old: handed over", "old: before go", "old: said go", "old: replaced",
	"new: started", "new: claimed", "new: ready", "new: has everything", "new: before go", "new: heard go",
	"new: took over", "new: committed", "new: in charge",
	"crash: locked", "crash: workers came", "crash: adopted", "crash: committed",
}
