// One dashboard, drawn by Grafana's own components from the dashboard's JSON and Prometheus' own answers.
//
// `window.BOARD` is what scripts/draw_dashboards puts there: {dashboard, answers: [{ref id: answer} for each panel], from, to}.
// What Grafana's panels do between an answer and a component (frames, display names, the columns of tables) is done here
// as its Prometheus data source and its panels do it; drawing itself (units, thresholds, scales, legends) is Grafana's.
import React from 'react';
import { createRoot } from 'react-dom/client';
import {
  createTheme, dateTime, FieldType, getDisplayProcessor, getFieldDisplayName, ThemeContext, toDataFrame,
} from '@grafana/data';
import {
  BigValue, BigValueColorMode, BigValueGraphMode, BigValueJustifyMode, BigValueTextMode, GlobalStyles, PanelChrome, Table,
  TimeSeries,
} from '@grafana/ui';

const theme = createTheme({ colors: { mode: 'dark' } });
const WIDTH = 1600, COLUMN = WIDTH / 24, UNIT = 38, GAP = 8;
const { dashboard, answers, from, to } = window.BOARD;
const range = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };

const LINE = {
  drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, gradientMode: 'none', showPoints: 'auto',
  pointSize: 5, spanNulls: false, axisPlacement: 'auto', axisColorMode: 'text', axisLabel: '', axisCenteredZero: false,
  axisBorderShow: false, scaleDistribution: { type: 'linear' }, stacking: { mode: 'none', group: 'A' },
  hideFrom: { tooltip: false, viz: false, legend: false }, thresholdsStyle: { mode: 'off' }, barAlignment: 0,
  insertNulls: false,
};

/** `{{label}}` filled in, as the data source names series. */
function legendOf(format, labels) {
  const text = (format ?? '').replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');
  const rest = Object.entries(labels).filter(([name]) => name !== '__name__').map(([k, v]) => `${k}="${v}"`).join(', ');
  return format ? text : `${labels.__name__ ?? ''}{${rest}}`;
}

function dropsName(labels) {
  const { __name__, ...rest } = labels;
  return rest;
}

function lineFrames(panel) {
  return panel.targets.flatMap((target) =>
    (answers[panel.at][target.refId] ?? []).map((series) => {
      const values = series.values ?? [series.value];
      return toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: values.map(([at]) => at * 1000), config: {} },
          {
            name: 'Value', type: FieldType.number, labels: dropsName(series.metric), config: {
              displayNameFromDS: legendOf(target.legendFormat, series.metric),
            },
            values: values.map(([, value]) => (value === 'NaN' ? null : Number(value))),
          },
        ],
      });
    })
  );
}

/** One row for each set of labels, one column for each query: the "merge" transformation; then "organize". */
function tableFrame(panel) {
  const rows = new Map();
  for (const target of panel.targets) {
    for (const series of answers[panel.at][target.refId] ?? []) {
      const labels = panel.targets.length > 1 ? dropsName(series.metric) : series.metric;
      const key = panel.targets.length > 1 ? JSON.stringify(shared(labels, panel)) : JSON.stringify(labels);
      const row = rows.get(key) ?? {};
      const value = panel.targets.length > 1 ? `Value #${target.refId}` : 'Value';
      rows.set(key, { ...row, ...labels, [value]: Number(series.value[1]) });
    }
  }
  const organize = (panel.transformations ?? []).find((one) => one.id === 'organize')?.options ?? {};
  const order = organize.indexByName ?? {};
  const all = [...new Set([...rows.values()].flatMap((row) => Object.keys(row)))]
    .filter((name) => !organize.excludeByName?.[name])
    .sort((a, b) => (order[a] ?? 0) - (order[b] ?? 0));
  const values = [...rows.values()];
  const sort = (panel.options?.sortBy ?? [])[0];
  if (sort) {
    const renamed = Object.entries(organize.renameByName ?? {}).find(([, shown]) => shown === sort.displayName);
    const name = renamed?.[0] ?? sort.displayName;
    values.sort((a, b) => (a[name] > b[name] ? 1 : -1) * (sort.desc ? -1 : 1));
  }
  return toDataFrame({
    fields: all.map((name) => ({
      name: organize.renameByName?.[name] ?? name,
      type: name.startsWith('Value') ? FieldType.number : FieldType.string,
      values: values.map((row) => row[name] ?? null),
      config: {},
    })),
  });
}

/** Labels that every query's series have: what "merge" joins rows by. */
function shared(labels, panel) {
  const sets = panel.targets.map((target) => answers[panel.at][target.refId] ?? []).filter((series) => series.length);
  const names = Object.keys(labels).filter((name) => sets.every((series) => series.every((one) => name in one.metric)));
  return names.sort().map((name) => [name, labels[name]]);
}

/** The panel's defaults and its overrides (by name), on every field. */
function withConfig(panel, frames, custom) {
  const { defaults, overrides = [] } = panel.fieldConfig;
  const usual = {
    color: { mode: panel.type === 'timeseries' ? 'palette-classic' : 'thresholds' },
    thresholds: { mode: 'absolute', steps: [{ value: -Infinity, color: 'green' }, { value: 80, color: 'red' }] },
  };
  for (const frame of frames) {
    for (const field of frame.fields) {
      const config = field.type === FieldType.time ? {} : { ...usual, ...defaults, ...field.config };
      config.custom = { ...custom, ...defaults.custom };
      const name = field.config.displayNameFromDS ?? field.name;
      for (const { matcher, properties } of overrides) {
        if (matcher.id !== 'byName' || matcher.options !== name) continue;
        for (const { id, value } of properties) {
          if (id.startsWith('custom.')) config.custom[id.slice(7)] = value;
          else config[id] = value;
        }
      }
      if (config.thresholds) {
        const steps = config.thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity }));
        config.thresholds = { ...config.thresholds, steps };
      }
      field.config = config;
      field.state = { ...field.state, displayName: getFieldDisplayName(field, frame, frames) };
      field.display = getDisplayProcessor({ field, theme, timeZone: 'utc' });
    }
  }
  return frames;
}

function Lines({ panel, width, height }) {
  const frames = withConfig(panel, lineFrames(panel), LINE);
  frames.forEach((frame, index) => { frame.fields[1].state = { ...frame.fields[1].state, seriesIndex: index }; });
  if (!frames.length) return <Empty />;
  return (
    <TimeSeries frames={frames} timeRange={range} timeZone="utc" width={width} height={height} structureRev={1}
      legend={{ calcs: [], displayMode: 'list', placement: 'bottom', showLegend: true, ...panel.options?.legend }}
      options={{}} />
  );
}

function Numbers({ panel, width, height }) {
  const frames = withConfig(panel, lineFrames(panel), {});
  if (!frames.length) return <Empty />;
  const each = width / frames.length;
  return (
    <div style={{ display: 'flex' }}>
      {frames.map((frame, index) => {
        const field = frame.fields[1];
        const value = field.values[field.values.length - 1];
        const shown = field.display(value);
        return (
          <BigValue key={index} width={each} height={height} theme={theme} graphMode={BigValueGraphMode.None}
            colorMode={panel.options?.colorMode ?? BigValueColorMode.Value} justifyMode={BigValueJustifyMode.Auto}
            textMode={frames.length > 1 ? BigValueTextMode.ValueAndName : BigValueTextMode.Value}
            value={{ ...shown, title: field.state.displayName }} />
        );
      })}
    </div>
  );
}

function Rows({ panel, width, height }) {
  const [frame] = withConfig(panel, [tableFrame(panel)], { align: 'auto', inspect: false, cellOptions: { type: 'auto' } });
  if (!frame.length) return <Empty />;
  return <Table data={frame} width={width} height={height} columnMinWidth={80} />;
}

const Empty = () => <div style={{ padding: 16, color: theme.colors.text.secondary }}>No data</div>;
const KINDS = { timeseries: Lines, stat: Numbers, table: Rows };

function Placed({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const box = { position: 'absolute', left: x * COLUMN + GAP, top: y * UNIT + 60, width: w * COLUMN - GAP, height: h * UNIT - GAP };
  if (panel.type === 'row') {
    return <div style={{ ...box, height: UNIT, paddingTop: 8, fontSize: 16, fontWeight: 500 }}>{panel.title}</div>;
  }
  const Kind = KINDS[panel.type];
  return (
    <div style={box}>
      <PanelChrome title={panel.title} description={panel.description} width={box.width} height={box.height} padding="sm"
        titleItems={panel.links?.some((link) => link.title.startsWith('Runbook')) ? [<span key="l" style={{ alignSelf: 'center', color: theme.colors.text.link, fontSize: 12 }}>runbook</span>] : []}>
        {(width, height) => <Kind panel={panel} width={width} height={height} />}
      </PanelChrome>
    </div>
  );
}

function Page() {
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ position: 'absolute', left: GAP, top: 16, fontSize: 20 }}>
        {dashboard.title} <span style={{ fontSize: 13, color: theme.colors.text.secondary }}>{dashboard.description}</span>
      </div>
      {dashboard.panels.map((panel, at) => <Placed key={at} panel={{ ...panel, at }} />)}
    </ThemeContext.Provider>
  );
}

document.body.style.background = theme.colors.background.canvas;
document.body.style.color = theme.colors.text.primary;
createRoot(document.getElementById('root')).render(<Page />);
