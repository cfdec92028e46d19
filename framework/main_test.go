package framework

import (
	"os"
	"testing"

	"github.com/baton-go/baton/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Main(m)) }
