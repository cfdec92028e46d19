package workers

// Mark is what a worker knows of itself. There are none on Windows.
type Mark struct{}

// Marked says that this process is no worker.
func Marked() (*Mark, bool) { return nil, false }

// ID is of no use here.
func (*Mark) ID() ID { return ID{} }
