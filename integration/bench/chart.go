//go:build linux

package main

import (
	"errors"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The charts, by the names of their files.
const (
	rateChart    = "rate"
	cpuChart     = "cpu"
	latencyChart = "latency"
)

// A facet is one of the plots that stand side by side in a chart.
type facet struct {
	title  string
	load   string
	figure figure
	ratio  bool // to net/http, or the figure itself
}

// facets of the chart.
func (r *report) facets(chart string) []facet {
	var fs []facet
	for _, l := range r.Loads {
		open := l.Rate > 0
		switch {
		case chart == rateChart && !open:
			fs = append(fs, facet{l.Title, l.Name, rate, true})
		case chart == cpuChart && open:
			fs = append(fs, facet{l.Title + ", half load", l.Name, cpu, true})
		case chart == cpuChart:
			fs = append(fs, facet{l.Title, l.Name, cpu, true})
		case chart == latencyChart && open:
			fs = append(fs, facet{l.Title + ", p50 in ms", l.Name, p50, false}, facet{l.Title + ", p99 in ms", l.Name, p99, false})
		}
	}
	return fs
}

func (r *report) has(chart string) bool { return len(r.facets(chart)) > 0 }

// draw writes the charts as SVG.
func (r *report) draw(dir string) error {
	var errs []error
	for _, name := range []string{rateChart, cpuChart, latencyChart} {
		if r.has(name) {
			errs = append(errs, r.drawOne(filepath.Join(dir, name+".svg"), r.facets(name)))
		}
	}
	return errors.Join(errs...)
}

const (
	columns    = 3
	facetWidth = 3.6 * vg.Inch
	lineHeight = 0.22 * vg.Inch
	headHeight = 0.7 * vg.Inch
)

func (r *report) drawOne(path string, facets []facet) error {
	// The first line is at the top, where an axis has its greatest value.
	var names []string
	for _, p := range r.Peers {
		if p.Unavailable == "" {
			names = append(names, p.Name)
		}
	}
	slices.Reverse(names)
	var grid [][]*plot.Plot
	for some := range slices.Chunk(facets, columns) {
		row := make([]*plot.Plot, min(columns, len(facets)))
		for i, f := range some {
			var err error
			if row[i], err = r.plot(f, names); err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(path), err)
			}
		}
		grid = append(grid, row)
	}
	rows, cols := len(grid), len(grid[0])
	height := headHeight + lineHeight*vg.Length(len(names))
	canvas := vgsvg.New(facetWidth*vg.Length(cols), height*vg.Length(rows))
	pad := vg.Points(8)
	tiles := draw.Tiles{Rows: rows, Cols: cols, PadX: pad, PadY: pad, PadLeft: pad, PadRight: pad, PadTop: pad, PadBottom: pad}
	for i, row := range plot.Align(grid, tiles, draw.New(canvas)) {
		for j, c := range row {
			if grid[i][j] != nil {
				grid[i][j].Draw(c)
			}
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(f)
	return errors.Join(err, f.Close())
}

// intervals are medians with what encloses them, for plotter.
type intervals struct {
	plotter.XYs
	plotter.XErrors
}

// plot draws a dot for each median, with a line for its interval.
func (r *report) plot(f facet, names []string) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = f.title
	p.Title.TextStyle.Font.Size = vg.Points(10)
	p.X.Tick.Label.Font.Size = vg.Points(8)
	p.Y.Tick.Label.Font.Size = vg.Points(8)
	p.NominalY(names...)
	p.X.Min = 0
	p.Y.Min, p.Y.Max = -0.5, float64(len(names))-0.5
	var points intervals
	for y, name := range names {
		found := r.find(f.load, name, f.figure.name)
		s := found.Absolute
		if f.ratio {
			s = found.Ratio
		}
		if s.N == 0 {
			continue
		}
		points.XYs = append(points.XYs, plotter.XY{X: s.Median, Y: float64(y)})
		points.XErrors = append(points.XErrors, struct{ Low, High float64 }{s.Low - s.Median, s.High - s.Median})
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color = color.Gray{230}
	grid.Vertical.Color = color.Gray{230}
	p.Add(grid)
	if f.ratio {
		one, err := plotter.NewLine(plotter.XYs{{X: 1, Y: p.Y.Min}, {X: 1, Y: p.Y.Max}})
		if err != nil {
			return nil, err
		}
		one.Color = color.Gray{128}
		p.Add(one)
	}
	if len(points.XYs) == 0 {
		return p, nil
	}
	bars, err := plotter.NewXErrorBars(points)
	if err != nil {
		return nil, err
	}
	dots, err := plotter.NewScatter(points.XYs)
	if err != nil {
		return nil, err
	}
	dots.GlyphStyle = draw.GlyphStyle{Color: color.RGBA{R: 31, G: 119, B: 180, A: 255}, Radius: vg.Points(3), Shape: draw.CircleGlyph{}}
	p.Add(bars, dots)
	p.X.Min, p.X.Max = 0, p.X.Max*1.05
	return p, nil
}
