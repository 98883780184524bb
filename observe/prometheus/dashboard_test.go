package prometheus_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

var (
	metricName = regexp.MustCompile(`\bmediabolt_\w+`)
	matcher    = regexp.MustCompile(`(\w+)(=|!=|=~|!~)"([^"]*)"`)
	grouping   = regexp.MustCompile(`\bby \(([^)]*)\)`)
	legend     = regexp.MustCompile(`\{\{(\w+)\}\}`)
	word       = regexp.MustCompile(`\w+`)
)

// fromPrometheus are labels that scraping adds, and that histograms have.
var fromPrometheus = []string{"job", "le"}

// The dashboard asks for nothing but what the collector exports, and for all of
// it.
func TestDashboardAsksForWhatIsExported(t *testing.T) {
	store, registry, dir := open(t)
	live(t, store, dir)
	families, err := registry.Gather()
	require.NoError(t, err)
	family := map[string]string{} // of a series
	labels := map[string]map[string]bool{}
	for _, f := range families {
		series := []string{""}
		if f.GetType() == dto.MetricType_HISTOGRAM {
			series = []string{"_bucket", "_count", "_sum"}
		}
		for _, suffix := range series {
			family[f.GetName()+suffix] = f.GetName()
		}
		for _, m := range f.GetMetric() {
			for _, pair := range m.GetLabel() {
				if labels[pair.GetName()] == nil {
					labels[pair.GetName()] = map[string]bool{}
				}
				labels[pair.GetName()][pair.GetValue()] = true
			}
		}
	}

	data, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Templating struct {
			List []struct{ Query any }
		}
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	require.NoError(t, json.Unmarshal(data, &dashboard))
	asked := map[string]bool{}
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		require.False(t, ids[p.ID], "panel %d comes twice", p.ID)
		ids[p.ID] = true
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			names := metricName.FindAllString(target.Expr, -1)
			require.NotEmpty(t, names, "%s: %s", p.Title, target.Expr)
			for _, name := range names {
				require.Contains(t, family, name, "%s asks for a metric that is not exported", p.Title)
				asked[family[name]] = true
			}
			for _, m := range matcher.FindAllStringSubmatch(target.Expr, -1) {
				if !slices.Contains(fromPrometheus, m[1]) {
					require.True(t, labels[m[1]][m[3]], "%s: nothing has %s=%q", p.Title, m[1], m[3])
				}
			}
			by := map[string]bool{}
			for _, g := range grouping.FindAllStringSubmatch(target.Expr, -1) {
				for _, label := range word.FindAllString(g[1], -1) {
					by[label] = true
					require.True(t, slices.Contains(fromPrometheus, label) || labels[label] != nil, "%s: no label %s", p.Title, label)
				}
			}
			for _, l := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				require.True(t, by[l[1]], "%s: the legend has %s, the query does not", p.Title, l[1])
			}
		}
	}
	for _, v := range dashboard.Templating.List {
		if query, ok := v.Query.(map[string]any); ok {
			for _, name := range metricName.FindAllString(query["query"].(string), -1) {
				require.Contains(t, family, name)
			}
		}
	}
	exported := map[string]bool{}
	for name := range maps.Values(family) {
		exported[name] = true
	}
	require.Equal(t, exported, asked, "exported metrics that no panel shows")
}
