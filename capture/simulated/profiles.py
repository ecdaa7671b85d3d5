"""`SensorProfile`: a kind of RGB-D-IR camera as data. `SensorNoise`: what its sensors add to an ideal image.

`docs/simulator-sources.md` lists every constant with the text that states it, or says that it was chosen. In short:

- Stereo depth (read): error = z² · (subpixel error) / (f · B), subpixel error about 0.08 px; steps of 1/32 px; 126
  disparities, hence no depth nearer than f · B / 126; f, baseline and offsets as units of a D435 report them; noise in
  waves that averaging frames does not remove, hence a share of it that lasts.
- Projector (read): about 5000 dots over 90 by 63 degrees.
- Structured light (read): 640 x 480, unit 1/8 mm, 0.2 to 1.5 m, focal lengths, no depth on hair. Its spread, its
  correlations, its baseline and its thresholds are chosen.
- Time of flight: `capture.simulated.time_of_flight`; its profile is chosen in the order of the Azure Kinect's.
- Sensors: full wells, read noise, non-uniformity and blur are chosen in the order of small CMOS sensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from capture.camera import CameraError
from capture.frames import EmitterState, Spectrum


@dataclass(frozen=True, kw_only=True)
class SensorNoise:
    """What the sensors add. `SensorNoise()` is a D435-like camera, `SensorNoise.none()` an ideal one.

    Attributes:
        disparity_px: standard deviation of the matcher's disparity; depth noise is z² times this / (f B).
        disparity_step_px: quantisation of disparity, 0 for none.
        correlation_px: standard deviation of the Gaussian within which disparity errors are alike.
        hold_frames: over this many frames errors fade from one pattern into another; 1 is a new one each frame.
        lasting_share: of the variance of disparity errors, stays as it is for as long as the camera films.
        window_px: how far the matcher smooths depth within a surface (standard deviation).
        fat_edges_px: how far near surfaces grow over what is behind them, raggedly.
        holes: leave depth out at jumps, in the stereo shadow, at grazing angles, on dark and on glossy surfaces.
        grazing_cosine: surfaces seen flatter than this give no depth. dark_code: nor do those darker than this.
        glare_code: infrared at or above this code gives no depth.
        full_well: electrons at code 255 (shot noise), in colour and infrared. read_codes: noise in the dark, codes.
        fixed_pattern: relative spread of the pixels' sensitivities; belongs to a serial.
        blur_px: standard deviation of the optics' point-spread function.
        bayer: colour passes a Bayer mosaic and its interpolation.
        chroma_subsampled: colour passes YUYV, one chroma for two columns, as USB cameras send it.
        jpeg_quality: colour passes JPEG of that quality (4:2:2) instead, as webcams' MJPEG does; None: it does not.
        exposure_ms: colour is exposed for so long, and smeared as far as the shown face moves meanwhile; 0: an instant.
        range_noise_m: time of flight: spread of depth where as much light returns as from white at 1 m.
        range_noise_limit_m: pixels that are worse than that give no depth.
        mixed_px: how far (standard deviation) a pixel mixes in its neighbours' phase. scattered_share: of all light,
            arrives elsewhere than it should.
    """

    disparity_px: float = 0.08
    disparity_step_px: float = 1 / 32
    correlation_px: float = 1.6
    hold_frames: int = 3
    lasting_share: float = 0.5
    window_px: float = 1.0
    fat_edges_px: int = 2
    holes: bool = True
    grazing_cosine: float = 0.18
    dark_code: float = 2.0
    glare_code: float = 252.0
    full_well: float | None = 6000.0
    read_codes: float = 0.9
    fixed_pattern: float = 0.008
    blur_px: float = 0.6
    bayer: bool = True
    chroma_subsampled: bool = True
    jpeg_quality: int | None = None
    exposure_ms: float = 0.0
    range_noise_m: float = 0.0
    range_noise_limit_m: float = 0.03
    mixed_px: float = 0.0
    scattered_share: float = 0.0

    @classmethod
    def none(cls) -> SensorNoise:
        """Ideal planes: exact depth to the nearest unit, no noise, no blur, no holes."""
        return cls(disparity_px=0.0, disparity_step_px=0.0, window_px=0.0, fat_edges_px=0, holes=False, full_well=None,
                   read_codes=0.0, fixed_pattern=0.0, blur_px=0.0, bayer=False, chroma_subsampled=False)


class Ranging(StrEnum):
    """How depth is measured."""

    TRIANGULATION = "triangulation"
    TIME_OF_FLIGHT = "time_of_flight"


@dataclass(frozen=True, kw_only=True)
class SensorProfile:
    """A kind of camera.

    Attributes:
        name: key of `SENSOR_PROFILES`. product: what a rig made for it is called.
        depth_scale_m: metres a depth unit. baseline_m: between the imagers, or between projector and imager.
        focal_px, colour_focal_px: at 640 columns. colour_offset_m: of the colour sensor, along x.
        disparities: how many the matcher searches, at any resolution, hence no depth nearer than f · B over it; 0: no
            such limit. nearest_m, farthest_m: beyond these there is no depth.
        emitter: FLOOD: an even lamp at 850 nm beside the sensor. ON: the projector's dots. OFF: the room alone.
        visible_share: how much of visible light the infrared imager also counts; 0 behind an infrared-pass filter.
        ranging: TIME_OF_FLIGHT has no stereo shadow, and an infrared image of its own light alone.
        surface_holes: multiplies how much of difficult surfaces (hair, glass) gives no depth.
        dots: number of projected dots over the depth image. noise: what the sensors add.
    """

    name: str
    product: str
    depth_scale_m: float = 1e-3
    baseline_m: float = 0.050
    focal_px: float = 385.1
    colour_focal_px: float = 615.2
    colour_offset_m: float = 0.0147
    disparities: int = 0
    nearest_m: float = 0.0
    farthest_m: float = 65.0
    emitter: EmitterState = EmitterState.FLOOD
    visible_share: float = 0.0
    ranging: Ranging = Ranging.TRIANGULATION
    surface_holes: float = 1.0
    dots: int = 5000
    noise: SensorNoise = field(default_factory=SensorNoise)

    @property
    def spectrum(self) -> Spectrum:
        return Spectrum.VISIBLE_AND_NEAR_INFRARED if self.visible_share else Spectrum.NEAR_INFRARED


SENSOR_PROFILES: dict[str, SensorProfile] = {profile.name: profile for profile in (
    # A D435 with infrared-pass filters (as the D435f has them) and a flood lamp, the projector off.
    SensorProfile(name="d4xx", product="simulated D435-like camera", disparities=126, farthest_m=10.0),
    # The same camera as it comes: dots on, imagers that see visible light too; texture everywhere, so fewer holes.
    SensorProfile(name="d4xx_projector", product="simulated D435-like camera, projector on",
                  disparities=126, farthest_m=10.0, emitter=EmitterState.ON, visible_share=0.25),
    # Coded light: finer depth nearby, no matcher's window, flood-like infrared, short range.
    SensorProfile(name="sr300", product="simulated SR300-like camera", depth_scale_m=1.25e-4, baseline_m=0.065,
                  focal_px=475.0, colour_focal_px=617.0, colour_offset_m=0.0257, nearest_m=0.20, farthest_m=1.5,
                  noise=SensorNoise(disparity_px=0.11, disparity_step_px=0.0, correlation_px=0.8, hold_frames=1,
                                    lasting_share=0.0, window_px=0.6, fat_edges_px=0, grazing_cosine=0.28,
                                    dark_code=7.0, glare_code=250.0, full_well=4500.0, read_codes=1.3,
                                    fixed_pattern=0.012, blur_px=0.55)),
    # Continuous-wave time of flight. Held out: no tree or default weights are made with it.
    SensorProfile(name="time_of_flight", product="simulated time-of-flight camera", baseline_m=0.0, focal_px=455.0,
                  colour_focal_px=600.0, colour_offset_m=0.032, nearest_m=0.20, farthest_m=3.0,
                  ranging=Ranging.TIME_OF_FLIGHT, surface_holes=0.4,
                  noise=SensorNoise(disparity_px=0.0, disparity_step_px=0.0, correlation_px=0.7, hold_frames=1,
                                    lasting_share=0.0, window_px=0.0, fat_edges_px=0, grazing_cosine=0.08,
                                    dark_code=1.5, glare_code=255.0, full_well=9000.0, read_codes=1.0, blur_px=0.7,
                                    range_noise_m=0.0018, mixed_px=0.6, scattered_share=0.012)),
    SensorProfile(name="clean", product="simulated ideal camera", noise=SensorNoise.none()),
)}


def sensor_profile(profile: str | SensorProfile) -> SensorProfile:
    """A profile by name.

    Raises:
        CameraError: there is no profile of that name; the message lists those there are.
    """
    if isinstance(profile, SensorProfile):
        return profile
    if profile not in SENSOR_PROFILES:
        raise CameraError(f"no sensor profile {profile!r}; there are: {', '.join(SENSOR_PROFILES)}")
    return SENSOR_PROFILES[profile]
