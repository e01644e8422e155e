#pragma once
// Outlines of shapes and characters as polygons, and their filling with smooth edges.
#include <vector>

#include "scene.hpp"

namespace scenes {

/// A closed polygon. Polygons of one object overlap freely: what any of them winds around is inside.
using Contour = std::vector<Point>;

std::vector<Contour> outline(const Object& object);

/// Paints the inside of the contours. Coverage is exact along x and sampled four times a pixel along y.
void fill(const std::vector<Contour>& contours, Rgb paint, int width_pixels, int height_pixels, uint8_t* pixels);

}  // namespace scenes
